//! Keeps alive what must live. A task that panics is begun again, each time after a longer pause, and counted; where the state of a
//! task cannot be made anew the process ends with [`EXIT_PANICKED`]. Nothing that lives long is spawned without one or the other
//! (`messaging/tests/tidy.rs: nothing_that_lives_long_dies_alone`).
//!
//! Each panic is counted once, where it begins. What it says is never written down: it may hold a person's words. Where it was is.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::metrics::{self, SupervisedTask};

/// The exit code of a process that ends because something in it panicked that cannot be begun again.
pub const EXIT_PANICKED: i32 = 70;
/// First and longest pause before a task is begun again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A task that has worked for so long begins with the first pause again.
const GOOD: Duration = Duration::from_secs(60);

thread_local! {
    /// How many callers up the stack catch a panic.
    static CATCHERS: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic of this thread was.
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic that was caught: where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// Source file and line.
    pub at: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked at {}", self.at)
    }
}

/// From now on every panic of the process is counted, and its place is kept for whoever catches it; one that nobody catches is logged.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            metrics::PANICS.at([]).increment(1);
            let at = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
            if CATCHERS.get() == 0 {
                tracing::error!(at, thread = std::thread::current().name(), "a panic");
            }
            LAST.set(at);
            // With its words: for developers only.
            if cfg!(debug_assertions) {
                former(info);
            }
        }));
    });
}

struct Catcher;

impl Catcher {
    fn new() -> Self {
        CATCHERS.set(CATCHERS.get() + 1);
        Self
    }
}

impl Drop for Catcher {
    fn drop(&mut self) {
        CATCHERS.set(CATCHERS.get() - 1);
    }
}

/// Does some work. Its panic is its caller's to tell of.
///
/// # Errors
/// It panicked.
pub fn caught_here<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    watch_panics();
    let _catcher = Catcher::new();
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked { at: LAST.take() })
}

/// Does some asynchronous work. Its panic is its caller's to tell of.
///
/// # Errors
/// It panicked.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    caught_in(pin!(work)).await
}

/// The same where it stands: a large future is not moved.
///
/// # Errors
/// It panicked.
pub fn caught_in<T>(mut work: Pin<&mut impl Future<Output = T>>) -> impl Future<Output = Result<T, Panicked>> {
    watch_panics();
    std::future::poll_fn(move |context| {
        let _catcher = Catcher::new();
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked { at: LAST.take() })),
        }
    })
}

/// How long to wait before something is begun again: twice as long each time, from the start again after a good while or a cure.
#[derive(Debug)]
pub struct Pause {
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: PAUSE.0 }
    }
}

impl Pause {
    /// The wait now, after it had worked for so long.
    pub fn after(&mut self, worked: Duration) -> Duration {
        if worked >= GOOD {
            self.cured();
        }
        let now = self.next;
        self.next = (now * 2).min(PAUSE.1);
        now
    }

    /// What made it panic is gone.
    pub fn cured(&mut self) {
        self.next = PAUSE.0;
    }
}

/// Works until it ends by itself; begun again whenever it panics.
pub async fn again<F: Future<Output = ()>>(task: SupervisedTask, make: impl Fn() -> F) {
    let mut pause = Pause::default();
    loop {
        let begun = Instant::now();
        let Err(panicked) = caught(make()).await else { return };
        let wait = pause.after(begun.elapsed());
        metrics::TASK_RESTARTS.at([task.index()]).increment(1);
        tracing::error!(task = task.name(), at = panicked.at, again_in_s = wait.as_secs_f64(), "a task panicked and is begun again");
        tokio::time::sleep(wait).await;
    }
}

/// The same as a task of its own.
pub fn spawn_again<F: Future<Output = ()> + Send + 'static>(
    task: SupervisedTask,
    make: impl Fn() -> F + Send + Sync + 'static,
) -> JoinHandle<()> {
    tokio::spawn(again(task, make))
}

/// The same on the thread of the caller.
pub fn again_here(task: SupervisedTask, work: impl Fn()) {
    let mut pause = Pause::default();
    loop {
        let begun = Instant::now();
        let Err(panicked) = caught_here(&work) else { return };
        let wait = pause.after(begun.elapsed());
        metrics::TASK_RESTARTS.at([task.index()]).increment(1);
        tracing::error!(task = task.name(), at = panicked.at, again_in_s = wait.as_secs_f64(), "a thread panicked and goes on");
        std::thread::sleep(wait);
    }
}

/// Works until it ends by itself. When it panics the process ends: what it had in hand cannot be made anew while others rely on it,
/// but it is when the process starts again.
pub async fn vital<T>(task: SupervisedTask, work: impl Future<Output = T>) -> T {
    match caught(work).await {
        Ok(done) => done,
        Err(panicked) => end_process(task, &panicked),
    }
}

/// The same on the thread of the caller.
pub fn vital_here<T>(task: SupervisedTask, work: impl FnOnce() -> T) -> T {
    match caught_here(work) {
        Ok(done) => done,
        Err(panicked) => end_process(task, &panicked),
    }
}

fn end_process(task: SupervisedTask, panicked: &Panicked) -> ! {
    tracing::error!(
        task = task.name(),
        at = panicked.at,
        code = EXIT_PANICKED,
        "a task panicked that cannot be begun again: the process ends"
    );
    std::process::exit(EXIT_PANICKED)
}

/// Locks, also after a holder that panicked. For values that are whole between any two statements of their holders: one panic is then
/// one caller's failure.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn pauses_grow_and_begin_anew() {
        let mut pause = Pause::default();
        let seconds = |pause: &mut Pause, worked| pause.after(Duration::from_secs(worked)).as_secs_f64();
        let grown: Vec<_> = (0..10).map(|_| seconds(&mut pause, 1)).collect();
        assert_eq!(grown, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]);
        assert_eq!(seconds(&mut pause, 60), 0.1, "a good while");
        assert_eq!(seconds(&mut pause, 59), 0.2);
        pause.cured();
        assert_eq!(seconds(&mut pause, 1), 0.1, "a cure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_begun_again_until_it_ends() {
        let begun = Arc::new(AtomicU32::new(0));
        let counted = begun.clone();
        let task = spawn_again(SupervisedTask::Sweep, move || {
            let count = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(count >= 3, "planted") }
        });
        task.await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn whoever_catches_learns_where() {
        let here = caught_here(|| panic!("planted")).unwrap_err();
        assert!(here.at.starts_with("messaging/src/supervise.rs:"), "{here}");
        let there = caught(async {
            tokio::task::yield_now().await;
            panic!("planted")
        });
        assert!(there.await.unwrap_err().at.starts_with("messaging/src/supervise.rs:"));
    }

    #[test]
    fn a_lock_outlives_a_panic() {
        let mutex = Mutex::new(1);
        let _ = caught_here(|| {
            let _held = mutex.lock().unwrap();
            panic!("planted");
        });
        assert_eq!(*lock(&mutex), 1);
    }
}
