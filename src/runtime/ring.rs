//! A bounded single-producer ring between two threads, and the bell that wakes who sleeps at its end.
//!
//! ```text
//!   producer --push--> [ ring of `capacity` ] --pop--> consumer task, or consumer thread
//!        \-- rings the bell: a Waker (task) or an unpark (thread)
//! ```
//!
//! Items are moved, nothing is shared; a full ring gives the item back, so the bound is the producer's to answer for.

use super::clock;
use atomic_waker::AtomicWaker;
use futures_lite::future;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::thread::Thread;

/// How long items of one ring are handled before other tasks go first. **Units:** nanoseconds.
const TURN_NS: u64 = 250_000;
/// So many turns before sockets go first as well. On glommio that is a short sleep, 33 µs with what it takes to wake up: 3 % of
/// a ring that is always full, and 12 % if it were each turn.
const TURNS_IN_A_ROW: u32 = 4;

/// The producer's end.
pub struct Producer<T> {
    ring: rtrb::Producer<T>,
    bell: Arc<AtomicWaker>,
}

/// The consumer's end, for a task.
pub struct Consumer<T> {
    ring: rtrb::Consumer<T>,
    bell: Arc<AtomicWaker>,
}

/// A ring of `capacity` items whose consumer is a task.
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    let bell = Arc::new(AtomicWaker::new());
    (Producer { ring: producer, bell: Arc::clone(&bell) }, Consumer { ring: consumer, bell })
}

impl<T> Producer<T> {
    /// Hands the item over, or gives it back when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.ring.push(item).map_err(|rtrb::PushError::Full(item)| item)?;
        self.bell.wake();
        Ok(())
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // The consumer learns of our end at its next poll, so it must poll. (The ring itself is dropped after this, but
        // the wake only schedules.)
        self.bell.wake();
    }
}

impl<T> Consumer<T> {
    /// The next item if there is one.
    pub fn try_pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Waits for the next item.
    pub async fn pop(&mut self) -> Option<T> {
        poll_fn(|context| {
            if let Ok(item) = self.ring.pop() {
                return Poll::Ready(Some(item));
            }
            self.bell.register(context.waker());
            // Again, after the waker stands: an item pushed in between would ring a bell nobody hears.
            match self.ring.pop() {
                Ok(item) => Poll::Ready(Some(item)),
                Err(_) if self.ring.is_abandoned() => Poll::Ready(None),
                Err(_) => Poll::Pending,
            }
        })
        .await
    }

    /// Hands every item over, until the producer is gone. Where they come in a row, other tasks go first after each turn, and
    /// sockets after some turns.
    pub async fn each(mut self, mut handle: impl FnMut(T)) {
        let (mut began_ns, mut turns) = (None, 0);
        loop {
            let item = match self.try_pop() {
                Some(item) => item,
                None => {
                    (began_ns, turns) = (None, 0);
                    let Some(item) = self.pop().await else { return };
                    item
                }
            };
            let began = *began_ns.get_or_insert_with(clock::monotonic_ns);
            handle(item);
            if clock::monotonic_ns() - began < TURN_NS {
                continue;
            }
            (began_ns, turns) = (None, turns + 1);
            if turns % TURNS_IN_A_ROW == 0 {
                super::let_others_go().await;
            } else {
                future::yield_now().await;
            }
        }
    }
}

/// The producer's end of a ring whose consumer is a thread that parks.
pub struct ThreadProducer<T> {
    ring: rtrb::Producer<T>,
    thread: Thread,
}

/// The consumer's end, for a thread.
pub struct ThreadConsumer<T> {
    ring: rtrb::Consumer<T>,
}

impl<T> ThreadProducer<T> {
    /// Hands the item over, or gives it back when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        self.ring.push(item).map_err(|rtrb::PushError::Full(item)| item)?;
        self.thread.unpark();
        Ok(())
    }
}

impl<T> Drop for ThreadProducer<T> {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl<T> ThreadConsumer<T> {
    /// The next item if there is one.
    pub fn try_pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Waits for the next item; `None` when the producer is gone and the ring is empty.
    ///
    /// It parks at once: a sync thread that looked again for 20 µs kept its own core from the batch it had just finished.
    pub fn pop(&mut self) -> Option<T> {
        loop {
            let abandoned = self.ring.is_abandoned();
            if let Ok(item) = self.ring.pop() {
                return Some(item);
            }
            if abandoned {
                return None;
            }
            // The bound of a park covers the one wake that cannot be seen: a producer that is dropped between the unpark in
            // its `drop` and the moment its ring counts as abandoned.
            std::thread::park_timeout(std::time::Duration::from_millis(200));
        }
    }
}

/// A ring of `capacity` items towards a thread; the producer is made once the thread is known.
pub fn thread_ring<T>(capacity: usize) -> (rtrb::Producer<T>, ThreadConsumer<T>) {
    let (producer, consumer) = rtrb::RingBuffer::new(capacity);
    (producer, ThreadConsumer { ring: consumer })
}

/// Joins a ring to the thread that consumes it.
pub fn toward<T>(ring: rtrb::Producer<T>, thread: Thread) -> ThreadProducer<T> {
    ThreadProducer { ring, thread }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::threads::{Role, spawn};

    #[test]
    fn a_full_ring_gives_the_item_back() {
        let (mut producer, mut consumer) = ring(1);
        assert_eq!(producer.push(1), Ok(()));
        assert_eq!(producer.push(2), Err(2));
        assert_eq!(consumer.try_pop(), Some(1));
        assert_eq!(producer.push(2), Ok(()));
    }

    #[test]
    fn every_item_crosses_to_a_thread_in_order_and_the_thread_ends_with_its_producer() {
        let (producer, mut consumer) = thread_ring(4);
        let thread = spawn(Role::Probe, "ring-test".to_owned(), move || {
            let mut seen = Vec::new();
            while let Some(item) = consumer.pop() {
                seen.push(item);
            }
            seen
        })
        .unwrap();
        let mut producer = toward(producer, thread.thread().clone());
        for item in 0..10_000_u32 {
            while producer.push(item).is_err() {
                std::thread::yield_now();
            }
        }
        drop(producer);
        assert_eq!(thread.join().unwrap(), (0..10_000).collect::<Vec<_>>());
    }

    /// glommio runs a task that merely yields again before it looks at its sockets, for up to 100 ms.
    #[test]
    fn a_ring_that_never_runs_dry_keeps_no_socket_waiting() {
        use crate::runtime::net::{Listener, open_listener};
        use crate::runtime::{Executor, run_core, spawn_local};
        use std::cell::{Cell, RefCell};
        use std::rc::Rc;
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

        const CONNECTIONS: u32 = 10;
        let mut executors = vec![Executor::Portable];
        if crate::runtime::choose(crate::runtime::Wanted::Uring, 1).is_ok() {
            executors.push(Executor::Uring);
        }
        for executor in executors {
            let listener = open_listener("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let connected = Arc::new(AtomicU32::new(0));
            let (accepted_in, mut accepted) = thread_ring::<u32>(1);
            let client = spawn(Role::Probe, "ring-client".to_owned(), {
                let connected = Arc::clone(&connected);
                move || {
                    for n in 0..CONNECTIONS {
                        let _stream = std::net::TcpStream::connect(address).unwrap();
                        connected.store(n + 1, SeqCst);
                        if accepted.pop().is_none() {
                            return;
                        }
                    }
                }
            })
            .unwrap();
            let mut accepted_in = toward(accepted_in, client.thread().clone());
            let waited_ns = run_core(executor, None, async move {
                let (accepted_now, since) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
                let (producer, consumer) = ring::<()>(2);
                let producer = RefCell::new(producer);
                producer.borrow_mut().push(()).unwrap();
                spawn_local(consumer.each({
                    let (accepted_now, since) = (Rc::clone(&accepted_now), Rc::clone(&since));
                    move |()| {
                        producer.borrow_mut().push(()).unwrap();
                        if since.get().is_none() && connected.load(SeqCst) > accepted_now.get() {
                            since.set(Some(clock::monotonic_ns()));
                        }
                    }
                }));
                let listener = Listener::adopt(listener).unwrap();
                let mut waited_ns = Vec::new();
                for n in 0..CONNECTIONS {
                    let _stream = listener.accept().await.unwrap();
                    waited_ns.push(since.take().map_or(0, |since| clock::monotonic_ns() - since));
                    accepted_now.set(n + 1);
                    accepted_in.push(n).unwrap();
                }
                waited_ns
            })
            .unwrap();
            drop(client.join());
            // Half of them: a machine that is busy with others may be late itself.
            let soon = waited_ns.iter().filter(|waited_ns| **waited_ns < 20 * TURN_NS).count();
            assert!(soon * 2 >= waited_ns.len(), "{executor}: {waited_ns:?}");
        }
    }
}
