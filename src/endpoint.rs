//! A connection's two tasks: bytes in, frames to the core; the outbox out.
//!
//! The reader never runs ahead of the core: whole frames that find no room wait in its buffer, and the socket behind it fills.
//! The writer ends the connection, once everything is said that is owed.

use crate::line::{Sink, Source};
use crate::runtime;
use crate::shard::ConnId;
use crate::shard::driver::{Core, Taken};
use futures_lite::future;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;

/// How much is read at once. **Units:** bytes.
const READ_BYTES: usize = 256 << 10;

/// A connection's first buffer: one that says little costs little. **Units:** bytes.
const FIRST_BYTES: usize = 16 << 10;

/// Waits until the core has ended the connection.
async fn gone(core: &Rc<RefCell<Core>>, id: ConnId) {
    future::poll_fn(|context| match core.borrow_mut().is_gone(id, context.waker()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Reads until the peer or the core ends it.
pub async fn read(core: Rc<RefCell<Core>>, id: ConnId, mut source: Source) {
    // It grows as far as whole frames of any allowed length fit, so a frame that does not end is refused, not awaited for
    // ever. 8-byte words keep the rows aligned.
    let most = (READ_BYTES + 2 * core.borrow().max_body()) / 8;
    let mut words = vec![0_u64; FIRST_BYTES / 8];
    let mut filled = 0;
    'connection: loop {
        if filled == words.len() * 8 && words.len() < most {
            words.resize((words.len() * 4).min(most), 0);
        }
        let space: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let ended = async {
            gone(&core, id).await;
            Ok(0)
        };
        match future::or(source.fill(&mut space[filled..]), ended).await {
            Ok(0) | Err(_) => break,
            Ok(len) => filled += len,
        }
        let mut taken = 0;
        loop {
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            let (len, verdict) = core.borrow_mut().take_frames(id, &bytes[taken..filled]);
            taken += len;
            match verdict {
                Taken::More => break,
                Taken::Later => runtime::let_others_go().await,
                Taken::Close => {
                    core.borrow_mut().close_when_said(id);
                    break 'connection;
                }
                Taken::Wait => {
                    future::poll_fn(|context| {
                        if core.borrow_mut().wait_for_room(id, context.waker()) {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    })
                    .await
                }
            }
        }
        let space: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        space.copy_within(taken..filled, 0);
        filled -= taken;
    }
    core.borrow_mut().reader_ended(id);
}

/// Writes what the core puts into the outbox.
pub async fn write(core: Rc<RefCell<Core>>, id: ConnId, mut sink: Sink) {
    let mut buffer = Vec::new();
    loop {
        let taken = future::poll_fn(|context| match core.borrow_mut().take_outbox(id, &mut buffer, context.waker()) {
            None => Poll::Ready(false),
            Some(true) => Poll::Ready(true),
            Some(false) if sink.owes(context.waker()) => Poll::Ready(true),
            Some(false) => Poll::Pending,
        })
        .await;
        if !taken {
            break;
        }
        let said = sink.say(&buffer);
        let ended = async {
            gone(&core, id).await;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        };
        if future::or(said, ended).await.is_err() {
            break;
        }
        buffer.clear();
    }
    let ended = async {
        gone(&core, id).await;
        Ok(())
    };
    drop(future::or(sink.close(), ended).await);
    core.borrow_mut().disconnect(id);
}
