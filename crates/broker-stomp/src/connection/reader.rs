//! The task that reads: frames to those who wait for them.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{
    consume::Message,
    handshake::{Read, error_text},
    state::{Known, Shared},
};
use crate::{
    codec::{Command, Decoder, Frame},
    error::LinkError,
    message::Settling,
};

/// Room that is made before each read, at least.
const READ: usize = 64 << 10;

pub(super) async fn run(
    shared: Arc<Shared>,
    mut read: Read,
    mut decoder: Decoder,
    mut input: BytesMut,
    heart_beat: Duration,
) {
    let closed = shared.closed.clone();
    let reading = async {
        loop {
            while let Some(frame) = decoder.decode(&mut input)? {
                dispatch(&shared, frame).await?;
            }
            // A body that was announced gets its room as it comes: the number
            // alone must not cost memory.
            let missing = decoder.missing(&input).min(input.len());
            input.reserve(missing.max(READ));
            // While this task waits for room in a buffer it is not the broker
            // that is silent: the time counts from here.
            let silence = heart_beat * 2;
            match timeout(silence, read.read_buf(&mut input)).await {
                Err(_) => return Err(LinkError::Silent(silence)),
                Ok(Ok(0)) => return Err(LinkError::ClosedByPeer),
                Ok(result) => result?,
            };
        }
    };
    let result: Result<(), LinkError> = tokio::select! {
        biased;
        () = closed.cancelled() => return,
        result = reading => result,
    };
    if let Err(cause) = result {
        shared.fail(cause);
    }
}

async fn dispatch(shared: &Shared, frame: Frame) -> Result<(), LinkError> {
    match frame.command {
        Command::Message => message(shared, frame).await,
        Command::Receipt => {
            let receipt = number(&frame, "receipt-id");
            // It confirms nothing, so that it does no harm.
            if receipt.is_none_or(|receipt| shared.receipt(receipt) == Known::No) {
                tracing::debug!(?receipt, "a receipt came that nobody waits for");
            }
            Ok(())
        }
        Command::Error => {
            let text = error_text(&frame);
            match number(&frame, "receipt-id") {
                Some(receipt) if shared.refused(receipt, &text) == Known::Yes => Ok(()),
                _ => Err(LinkError::Server(text.into())),
            }
        }
        other => Err(LinkError::protocol(format!("{} out of place", other.as_str()))),
    }
}

async fn message(shared: &Shared, frame: Frame) -> Result<(), LinkError> {
    let Some(subscription) = number(&frame, "subscription") else {
        return Err(LinkError::protocol("a MESSAGE without its subscription"));
    };
    // What comes after an UNSUBSCRIBE is dropped unacknowledged: it comes again.
    let Some(buffer) = shared.buffer(subscription) else {
        tracing::debug!(subscription, "a message came after its subscription's end");
        return Ok(());
    };
    let token = match (buffer.settling(), frame.headers.get("ack")) {
        (Settling::Auto, _) => None,
        (Settling::ClientIndividual, None) => {
            return Err(LinkError::protocol("a MESSAGE without the id for its ACK"));
        }
        (Settling::ClientIndividual, Some(id)) => match shared.handed_over(subscription, id)? {
            None => return Ok(()),
            token => token,
        },
    };
    buffer.put(Message::new(token, frame)).await;
    Ok(())
}

fn number(frame: &Frame, name: &str) -> Option<u64> {
    frame.headers.get(name)?.parse().ok()
}
