//! A small client of our own API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use messaging::seal::Secret;
use serde_json::Value;

/// The id of an object.
pub fn id(object: &Value) -> anyhow::Result<String> {
    Ok(object["id"].as_str().context("an object came without its id")?.to_owned())
}

/// A small client of our own API.
pub struct Api {
    base: String,
    key: Secret,
    client: bench::http::Client,
}

impl Api {
    /// With a key, to a node on this machine.
    pub fn new(gateway: SocketAddr, key: &str) -> Self {
        let client = bench::http::Client::new(Duration::from_secs(10));
        Self { base: format!("http://{gateway}"), key: Secret::new(key), client }
    }

    /// The key.
    pub fn key(&self) -> &str {
        self.key.expose()
    }

    async fn call(&self, method: http::Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let authorization = format!("Bearer {}", self.key.expose());
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        let url = format!("{}{path}", self.base);
        let response = self.client.send(method.clone(), &url, &headers, body.into()).await?;
        if !(200..300).contains(&response.status) {
            bail!("{method} {path} answered {}: {}", response.status, String::from_utf8_lossy(&response.body));
        }
        if response.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&response.body)?)
    }

    /// GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(http::Method::GET, path, None).await
    }
    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(http::Method::POST, path, Some(body)).await
    }
    /// DELETE.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call(http::Method::DELETE, path, None).await
    }

    /// Makes an object, or gives the one that was kept from before this run's addresses and secrets.
    pub async fn ensure(&self, path: &str, kept: Option<Value>, mut wanted: Value) -> anyhow::Result<Value> {
        let Some(kept) = kept else { return self.post(path, &wanted).await };
        if let Some(members) = wanted.as_object_mut() {
            members.remove("channel");
        }
        self.call(http::Method::PATCH, &format!("{path}/{}", id(&kept)?), Some(&wanted)).await
    }
}
