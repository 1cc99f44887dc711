//! Load: an open loop for latency, a closed loop for the saturated maximum and the ratio to a bare server, and reports that
//! say when a figure may not be used (operations.md, 15).
//!
//! * [`Prepared`]: requests built and signed before the clock starts; only ids and signatures are patched in the timed part;
//! * [`open_loop`]: a schedule fixed in advance, latency counted from the scheduled time;
//! * [`saturate`]: as fast as the connections allow, the gateway and a bare hyper server in turn, CPU read per process;
//! * [`Sink`] and [`check`]: the truth check; a run with a violation has no performance figure.

mod bare;
mod closed;
mod cpu;
mod environment;
mod flow;
mod open;
mod prepared;
mod record;
mod report;
mod saturate;
mod sink;
mod wire;

pub use bare::{BareChild, bare_main};
pub use closed::{ClosedPlan, closed_loop};
pub use cpu::{CpuUse, cpu_seconds, this_thread_seconds};
pub use environment::Environment;
pub use flow::Flow;
pub use open::{OpenPlan, open_loop};
pub use prepared::{IngressLoad, Prepared, SendLoad, phone};
pub use record::{LoadRun, Progress, Second};
pub use report::{Report, Summary};
pub use saturate::{SaturatePlan, SaturateReport, Side, saturate};
pub use sink::{Sink, accept_to_platform, accept_to_subscriber, check, check_sends};
