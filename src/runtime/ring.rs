//! A bounded single-producer ring between two threads, and the bell that wakes who sleeps at its end.
//!
//! ```text
//!   producer --push--> [ ring of `capacity` ] --pop--> consumer task, or consumer thread
//!        \-- rings the bell: a Waker (task) or an unpark (thread)
//! ```
//!
//! Items are moved, nothing is shared; a full ring gives the item back, so the bound is the producer's to answer for.

use atomic_waker::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::thread::Thread;

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
}
