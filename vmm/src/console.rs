//! The first console, `hvc0` (virtio 1.3 §5.3), served on the host by a thread of this process.
//!
//! Output goes to one inherited descriptor, input comes from another; both may be anything. A reader of the
//! output that does not read loses text, and stops neither the guest nor this thread.

pub(crate) mod output;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use self::output::Output;
use crate::event::descriptor;
use crate::local_queue::LocalQueue;
use crate::virtio_device::{Activation, F_EVENT_IDX, F_INDIRECT, VirtioDevice};
use crate::worker::{Worker, wait};

const KIND: u16 = 3;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const QUEUE_SIZE: u16 = 64;

/// The device.
pub(crate) struct Console {
    output: Arc<File>,
    input: Option<Arc<File>>,
    worker: Option<Worker<Work>>,
}

impl Console {
    /// Makes a console that prints to `output` and reads from `input`.
    pub(crate) fn new(output: Arc<File>, input: Option<Arc<File>>) -> Self {
        Self {
            output,
            input,
            worker: None,
        }
    }
}

impl VirtioDevice for Console {
    fn kind(&self) -> u16 {
        KIND
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE, QUEUE_SIZE]
    }

    fn features(&self) -> u64 {
        F_EVENT_IDX | F_INDIRECT
    }

    fn read_config(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            features,
            memory,
            queues,
        } = activation;
        let (mut receive, mut transmit) = (None, None);
        for ready in queues {
            match ready.index {
                RECEIVE => receive = Some(LocalQueue::new(ready, features, &memory)?),
                TRANSMIT => transmit = Some(LocalQueue::new(ready, features, &memory)?),
                _ => {}
            }
        }
        let (Some(receive), Some(transmit)) = (receive, transmit) else {
            return Err(io::Error::other("the guest did not set up both queues"));
        };
        let output = Output::new(Arc::clone(&self.output));
        let input = self.input.clone();
        let work = Work {
            receive,
            transmit,
            output,
            input,
        };
        self.worker = Some(Worker::start("console", move |stop| work.serve(stop))?);
        Ok(())
    }

    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        let Some(work) = self.worker.take().and_then(Worker::end) else {
            return Ok(Vec::new());
        };
        self.input = work.input;
        Ok(vec![work.receive.position(), work.transmit.position()])
    }

    fn reset(&mut self) {
        self.worker.take().and_then(Worker::end);
    }
}

struct Work {
    receive: LocalQueue,
    transmit: LocalQueue,
    output: Output,
    input: Option<Arc<File>>,
}

impl Work {
    fn serve(mut self, stop: &EventFd) -> Self {
        let mut guest_has_room = true;
        self.print(stop);
        loop {
            let input = self
                .input
                .as_ref()
                .filter(|_| guest_has_room)
                .map(|input| input.as_fd());
            let kicks =
                [self.transmit.kick(), self.receive.kick()].map(|kick| Some(descriptor(kick)));
            let sources = [Some(descriptor(stop)), kicks[0], kicks[1], input];
            let Ok([stopped, kicked, room, typed]) = wait(sources) else {
                return self;
            };
            if stopped {
                return self;
            }
            if kicked {
                let _count_does_not_matter = self.transmit.kick().read();
                self.print(stop);
            }
            if room {
                let _count_does_not_matter = self.receive.kick().read();
                guest_has_room = true;
            } else if typed {
                guest_has_room = self.pass_input();
            }
        }
    }

    /// Prints what the guest has put in the transmit queue.
    fn print(&mut self, stop: &EventFd) {
        while let Some(chain) = self.transmit.take() {
            let head = chain.head_index();
            let memory = Arc::clone(self.transmit.memory());
            if let Ok(mut text) = chain.reader(&memory) {
                self.output.print(&mut text, descriptor(stop));
            }
            self.transmit.finish(head, 0);
        }
    }

    /// Passes what was typed on; returns false when the guest has no room for it.
    fn pass_input(&mut self) -> bool {
        let Some(input) = self.input.clone() else {
            return true;
        };
        let Some(chain) = self.receive.take() else {
            return false;
        };
        let head = chain.head_index();
        let memory = Arc::clone(self.receive.memory());
        let mut typed = [0; 256];
        let passed = chain
            .writer(&memory)
            .map_err(io::Error::other)
            .and_then(|mut room| {
                let most = room.available_bytes().min(typed.len());
                let count = (&*input).read(&mut typed[..most])?;
                room.write_all(&typed[..count])?;
                Ok(count)
            });
        let count = match passed {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => {
                tracing::info!(%error, "the console has no more input");
                self.input = None;
                0
            }
        };
        if count == 0 {
            // The end of input: whoever typed is gone.
            self.input = None;
        }
        self.receive
            .finish(head, u32::try_from(count).expect("at most 256"));
        true
    }
}
