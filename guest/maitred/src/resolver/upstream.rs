//! The connection to the host's resolver: all questions share it, told apart by ids of our own, answered in any
//! order.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::message;

/// The host asks several resolvers and lets each try twice; a client has given up long before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions under way. Ids are 16 bits, and a flood is answered with failures rather than with memory.
const PENDING_MAX: usize = 1024;

/// The connection may have ended since the last question: a second try opens a new one.
const TRIES: u32 = 2;

/// Hands questions to the task that keeps the connection.
#[derive(Clone, Debug)]
pub(super) struct Upstream(mpsc::Sender<Question>);

#[derive(Debug)]
struct Question {
    message: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Upstream {
    /// Starts the task; it connects when there is something to ask.
    pub(super) fn start<S, F>(connect: impl Fn() -> F + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = io::Result<S>> + Send,
    {
        let (ask, mut questions) = mpsc::channel::<Question>(PENDING_MAX);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                // Whoever waits for an answer sees that it will not come when the question is dropped.
                match connect().await {
                    Ok(stream) => {
                        if let Err(error) = converse(stream, question, &mut questions).await {
                            tracing::debug!("the host's resolver went away: {error}");
                        }
                    }
                    Err(error) => tracing::debug!("the host's resolver is not there: {error}"),
                }
            }
        });
        Self(ask)
    }

    /// Returns the host's answer, with any id; `None` when there is none.
    pub(super) async fn ask(&self, question: &[u8]) -> Option<Vec<u8>> {
        let work = async {
            for _ in 0..TRIES {
                let (answer, wait) = oneshot::channel();
                let question = Question {
                    message: question.to_vec(),
                    answer,
                };
                self.0.send(question).await.ok()?;
                if let Ok(answer) = wait.await {
                    return Some(answer);
                }
            }
            None
        };
        timeout(ANSWER_TIMEOUT, work).await.ok().flatten()
    }
}

/// Asks `first` and what follows until the connection or the last asker is gone.
async fn converse<S: AsyncRead + AsyncWrite>(
    stream: S,
    first: Question,
    questions: &mut mpsc::Receiver<Question>,
) -> io::Result<()> {
    let (mut input, mut output) = tokio::io::split(stream);
    let mut pending = Pending::default();
    let mut received = Vec::new();
    if let Some(frame) = pending.add(first) {
        output.write_all(&frame).await?;
    }
    loop {
        tokio::select! {
            question = questions.recv() => {
                let Some(question) = question else { return Ok(()) };
                if let Some(frame) = pending.add(question) {
                    output.write_all(&frame).await?;
                }
            }
            read = input.read_buf(&mut received) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(answer) = take_frame(&mut received) {
                    pending.settle(answer);
                }
            }
        }
    }
}

/// Takes one whole message off the front.
fn take_frame(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    let frame = received.get(2..2 + length)?.to_vec();
    received.drain(..2 + length);
    Some(frame)
}

#[derive(Default)]
struct Pending {
    waiting: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    next: u16,
}

impl Pending {
    /// Gives the question an id; returns what to send, nothing when too many are under way.
    fn add(&mut self, question: Question) -> Option<Vec<u8>> {
        if self.waiting.len() >= PENDING_MAX {
            self.waiting.retain(|_, answer| !answer.is_closed());
        }
        if self.waiting.len() >= PENDING_MAX {
            return None;
        }
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.waiting.insert(id, question.answer);
        Some(message::framed(&message::with_id(question.message, id)))
    }

    /// Passes an answer on to who asked; one that nobody waits for is dropped.
    fn settle(&mut self, answer: Vec<u8>) {
        let id = answer.first_chunk().map(|id| u16::from_be_bytes(*id));
        if let Some(asker) = id.and_then(|id| self.waiting.remove(&id)) {
            let _ = asker.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::DuplexStream;

    use super::*;

    async fn read_question(host: &mut DuplexStream) -> Option<Vec<u8>> {
        let length = host.read_u16().await.ok()?;
        let mut question = vec![0; usize::from(length)];
        host.read_exact(&mut question).await.ok()?;
        Some(question)
    }

    /// An upstream whose host answers two questions at a time, the later one first.
    fn backwards() -> Upstream {
        Upstream::start(|| async {
            let (guest, mut host) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                while let (Some(one), Some(two)) = (
                    read_question(&mut host).await,
                    read_question(&mut host).await,
                ) {
                    for answer in [two, one] {
                        host.write_all(&message::framed(&answer)).await.unwrap();
                    }
                }
            });
            Ok(guest)
        })
    }

    #[tokio::test]
    async fn answers_in_any_order_reach_who_asked() {
        let upstream = backwards();
        let (one, two) = tokio::join!(upstream.ask(&[0, 0, 1, 1]), upstream.ask(&[0, 0, 2, 2]));
        assert_eq!(one.unwrap()[2..], [1, 1]);
        assert_eq!(two.unwrap()[2..], [2, 2]);
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_opened_again() {
        let connections = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&connections);
        let upstream = Upstream::start(move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (guest, mut host) = tokio::io::duplex(4096);
                tokio::spawn(async move {
                    let question = read_question(&mut host).await.unwrap();
                    // The first host goes away without a word.
                    if number > 0 {
                        host.write_all(&message::framed(&question)).await.unwrap();
                    }
                });
                Ok(guest)
            }
        });
        assert!(upstream.ask(&[0, 0, 5]).await.is_some());
        assert_eq!(connections.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn without_a_host_there_is_no_answer_and_no_wait() {
        let upstream = Upstream::start(|| async {
            Err::<DuplexStream, _>(io::ErrorKind::ConnectionReset.into())
        });
        let begun = std::time::Instant::now();
        assert_eq!(upstream.ask(&[0, 0]).await, None);
        assert!(begun.elapsed() < ANSWER_TIMEOUT);
    }

    #[test]
    fn frames_are_taken_whole() {
        let mut received = vec![0, 2, 7, 8, 0, 1];
        assert_eq!(take_frame(&mut received), Some(vec![7, 8]));
        assert_eq!(take_frame(&mut received), None);
        received.push(9);
        assert_eq!(take_frame(&mut received), Some(vec![9]));
    }
}
