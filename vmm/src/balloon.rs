//! The memory balloon (virtio 1.3 §5.5) on the host: guest pages that are free, or that the host asks for, go
//! back to the host as holes in the file behind guest memory.
//!
//! It is the one device in this process that walks what a guest wrote, because it is the one that changes what
//! guest memory is.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use spec::units::Mib;
use vmm_sys_util::eventfd::EventFd;

use crate::event::descriptor;
use crate::local_queue::{Chain, LocalQueue, writable};
use crate::memory::Memory;
use crate::virtio_device::{Activation, F_EVENT_IDX, VirtioDevice};
use crate::worker::{Worker, wait};

const KIND: u16 = 5;
/// The guest may take pages back without asking when it would run out of memory.
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_PAGE_REPORTING: u64 = 1 << 5;

/// Inflate, deflate, reporting. Queues that are not offered have no number (virtio 1.3 §5.5.2), so reporting is the
/// third, though statistics and hinting come before it in the standard.
const QUEUES: usize = 3;
const QUEUE_SIZE: u16 = 128;

/// The balloon counts in pages of this size whatever the guest's are (virtio 1.3 §5.5.6).
const PAGE: u64 = 4096;
const PAGES_PER_MIB: u32 = 256;

/// What other threads want to know of the balloon or tell it.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    wanted_pages: AtomicU32,
    actual_pages: AtomicU32,
    given_back_bytes: AtomicU64,
}

/// What outlives the process of a balloon: how much it shall hold and how much it holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    wanted_pages: u32,
    actual_pages: u32,
}

impl Gauge {
    /// Returns what a later process needs to know.
    pub(crate) fn save(&self) -> State {
        State {
            wanted_pages: self.wanted_pages.load(Ordering::Acquire),
            actual_pages: self.actual_pages.load(Ordering::Acquire),
        }
    }

    /// Goes on with what an earlier process knew.
    pub(crate) fn restore(&self, state: State) {
        let State {
            wanted_pages,
            actual_pages,
        } = state;
        self.wanted_pages.store(wanted_pages, Ordering::Release);
        self.actual_pages.store(actual_pages, Ordering::Release);
    }

    /// Asks the guest for `size`; the transport must then say that the configuration changed.
    pub(crate) fn want(&self, size: Mib) {
        self.wanted_pages
            .store(size.0.saturating_mul(PAGES_PER_MIB), Ordering::Release);
    }

    /// Returns what the guest says it has given.
    pub(crate) fn holds(&self) -> Mib {
        Mib(self.actual_pages.load(Ordering::Acquire) / PAGES_PER_MIB)
    }

    /// Returns how many bytes of free pages have gone back to the host.
    pub(crate) fn given_back_bytes(&self) -> u64 {
        self.given_back_bytes.load(Ordering::Relaxed)
    }
}

/// The device.
pub(crate) struct Balloon {
    gauge: Arc<Gauge>,
    worker: Option<Worker<Work>>,
}

impl Balloon {
    /// Makes an empty balloon.
    pub(crate) fn new(gauge: Arc<Gauge>) -> Self {
        Self {
            gauge,
            worker: None,
        }
    }

    fn config(&self) -> [u8; 8] {
        let wanted = self
            .gauge
            .wanted_pages
            .load(Ordering::Acquire)
            .to_le_bytes();
        let actual = self
            .gauge
            .actual_pages
            .load(Ordering::Acquire)
            .to_le_bytes();
        let mut config = [0; 8];
        config[..4].copy_from_slice(&wanted);
        config[4..].copy_from_slice(&actual);
        config
    }
}

impl VirtioDevice for Balloon {
    fn kind(&self) -> u16 {
        KIND
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | F_PAGE_REPORTING | F_EVENT_IDX
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        let config = self.config();
        let from = usize::try_from(offset)
            .ok()
            .and_then(|offset| config.get(offset..));
        for (to, from) in data.iter_mut().zip(from.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        // The guest writes one field: how many pages it has given.
        if let (4, Ok(actual)) = (offset, <[u8; 4]>::try_from(data)) {
            self.gauge
                .actual_pages
                .store(u32::from_le_bytes(actual), Ordering::Release);
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            features,
            memory,
            queues,
        } = activation;
        let mut mine = [const { None }; QUEUES];
        for ready in queues {
            if let Some(slot) = mine.get_mut(usize::from(ready.index)) {
                *slot = Some(LocalQueue::new(ready, features, &memory)?);
            }
        }
        let [inflate, deflate, reporting] = mine;
        let gauge = Arc::clone(&self.gauge);
        let work = Work {
            inflate,
            deflate,
            reporting,
            memory,
            gauge,
        };
        self.worker = Some(Worker::start("balloon", move |stop| work.serve(stop))?);
        Ok(())
    }

    fn pause(&mut self) -> io::Result<Vec<(u16, u16)>> {
        let Some(work) = self.worker.take().and_then(Worker::end) else {
            return Ok(Vec::new());
        };
        let queues = [work.inflate, work.deflate, work.reporting];
        let queues = queues.iter().flatten();
        Ok(queues.map(LocalQueue::position).collect())
    }

    fn reset(&mut self) {
        self.gauge.actual_pages.store(0, Ordering::Release);
        self.worker.take().and_then(Worker::end);
    }
}

struct Work {
    inflate: Option<LocalQueue>,
    deflate: Option<LocalQueue>,
    reporting: Option<LocalQueue>,
    memory: Memory,
    gauge: Arc<Gauge>,
}

impl Work {
    fn serve(mut self, stop: &EventFd) -> Self {
        loop {
            let queues = [&self.inflate, &self.deflate, &self.reporting];
            let kicks = queues.map(|queue| queue.as_ref().map(|queue| descriptor(queue.kick())));
            let sources = [Some(descriptor(stop)), kicks[0], kicks[1], kicks[2]];
            let Ok([stopped, inflated, deflated, reported]) = wait(sources) else {
                return self;
            };
            if stopped {
                return self;
            }
            let (memory, gauge) = (&self.memory, &self.gauge);
            if inflated {
                drain(self.inflate.as_mut(), |chain, queue| {
                    take_pages(chain, queue, memory);
                });
            }
            if deflated {
                // A page the guest takes back is there again when it touches it.
                drain(self.deflate.as_mut(), |_, _| {});
            }
            if reported {
                drain(self.reporting.as_mut(), |chain, _| {
                    take_ranges(chain, memory, gauge);
                });
            }
        }
    }
}

/// Does `act` with each request and gives it back.
fn drain(queue: Option<&mut LocalQueue>, mut act: impl FnMut(Chain, &LocalQueue)) {
    let Some(queue) = queue else { return };
    let _count_does_not_matter = queue.kick().read();
    while let Some(chain) = queue.take() {
        let head = chain.head_index();
        act(chain, queue);
        queue.finish(head, 0);
    }
}

/// Gives back the pages whose numbers the guest lists, neighbours in one hole.
fn take_pages(chain: Chain, queue: &LocalQueue, memory: &Memory) {
    let guest = Arc::clone(queue.memory());
    let Ok(mut list) = chain.reader(&guest) else {
        return;
    };
    let mut hole: Option<(u64, u64)> = None;
    let mut number = [0; 4];
    while list.read_exact(&mut number).is_ok() {
        let page = u64::from(u32::from_le_bytes(number)) * PAGE;
        hole = match hole {
            Some((start, length)) if start + length == page => Some((start, length + PAGE)),
            Some((start, length)) if page + PAGE == start => Some((page, length + PAGE)),
            before => {
                punch(before, memory);
                Some((page, PAGE))
            }
        };
    }
    punch(hole, memory);
}

/// Gives back the stretches of free pages the guest reports.
fn take_ranges(chain: Chain, memory: &Memory, gauge: &Gauge) {
    for range in writable(chain) {
        let (start, length) = (range.addr().0, u64::from(range.len()));
        if punch(Some((start, length)), memory) {
            gauge.given_back_bytes.fetch_add(length, Ordering::Relaxed);
        }
    }
}

/// Returns whether the host took the memory.
fn punch(hole: Option<(u64, u64)>, memory: &Memory) -> bool {
    let Some((start, length)) = hole else {
        return false;
    };
    let punched = memory.give_back(start, length);
    if let Err(error) = &punched {
        tracing::debug!(start, length, %error, "cannot give memory back");
    }
    punched.is_ok()
}
