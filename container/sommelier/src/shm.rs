//! The shared memory of one client in the container: pools, the buffers in them, and what of them
//! the host has seen.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use wayland::channel::{FdRole, Memory, Shared};
use wayland::rows::{Grid, Rows};
use wl_proxy::object::ObjectUtils;
use wl_proxy::protocols::wayland::wl_buffer::{WlBuffer, WlBufferHandler};
use wl_proxy::protocols::wayland::wl_shm::{WlShm, WlShmFormat, WlShmHandler};
use wl_proxy::protocols::wayland::wl_shm_pool::{WlShmPool, WlShmPoolHandler};

use crate::damage::Rect;

/// Smaller pieces of memory are not worth telling the host about.
const WORTH_DISCARDING: u32 = 64 * 1024;

/// All pools of one client.
pub(crate) struct Pools {
    channel: Shared,
    next: Cell<u32>,
    /// A buffer of each pool, to name in a protocol error.
    sent: RefCell<HashMap<u32, Weak<WlBuffer>>>,
}

struct Pool {
    id: u32,
    size: Cell<u32>,
    file: Rc<OwnedFd>,
    owner: Rc<Pools>,
    /// The byte ranges of its living buffers.
    used: RefCell<Vec<Range<u32>>>,
}

/// A client's buffer in shared memory.
pub(crate) struct Buffer {
    pool: Rc<Pool>,
    offset: u32,
    width: i32,
    height: i32,
    stride: i32,
    pixel_len: Option<u32>,
    /// The surface and its commit at which the host last got this buffer.
    seen: Cell<Option<(u64, u64)>>,
    /// The compositor may still read it.
    busy: Cell<bool>,
}

impl Pools {
    /// Returns the empty set of a client on `channel`.
    #[must_use]
    pub(crate) fn new(channel: Shared) -> Rc<Self> {
        Rc::new(Self {
            channel,
            next: Cell::new(1),
            sent: RefCell::default(),
        })
    }

    /// Returns a buffer of pool `id`, the one sent last.
    #[must_use]
    pub(crate) fn buffer_of(&self, id: u32) -> Option<Rc<WlBuffer>> {
        self.sent.borrow().get(&id).and_then(Weak::upgrade)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.owner.sent.borrow_mut().remove(&self.id);
        if let Ok(mut channel) = self.owner.channel.try_borrow_mut() {
            channel.memory(Memory::Drop(self.id));
        }
    }
}

/// Handles `wl_shm`.
pub(crate) struct ShmHandler(pub(crate) Rc<Pools>);

impl WlShmHandler for ShmHandler {
    fn handle_create_pool(
        &mut self,
        slf: &Rc<WlShm>,
        id: &Rc<WlShmPool>,
        fd: &Rc<OwnedFd>,
        size: i32,
    ) {
        let pools = &self.0;
        // A size the protocol forbids goes through as it is, for the compositor to refuse.
        let bytes = u32::try_from(size).unwrap_or(0);
        let number = pools.next.get();
        pools.next.set(number.wrapping_add(1));
        pools.channel.borrow_mut().memory(Memory::Pool {
            id: number,
            size: bytes,
        });
        if slf.try_send_create_pool(id, fd, size).is_ok() {
            pools.channel.borrow_mut().expect_fd(FdRole::Pool(number));
        }
        let pool = Pool {
            id: number,
            size: Cell::new(bytes),
            file: fd.clone(),
            owner: pools.clone(),
            used: RefCell::default(),
        };
        id.set_handler(PoolHandler(Rc::new(pool)));
    }

    fn handle_format(&mut self, slf: &Rc<WlShm>, format: WlShmFormat) {
        // How many bytes a planar buffer covers depends on the format; none is offered.
        if pixel_len(format).is_some() {
            slf.send_format(format);
        }
    }
}

struct PoolHandler(Rc<Pool>);

impl WlShmPoolHandler for PoolHandler {
    fn handle_create_buffer(
        &mut self,
        slf: &Rc<WlShmPool>,
        id: &Rc<WlBuffer>,
        offset: i32,
        width: i32,
        height: i32,
        stride: i32,
        format: WlShmFormat,
    ) {
        slf.send_create_buffer(id, offset, width, height, stride, format);
        let buffer = Buffer {
            pool: self.0.clone(),
            offset: u32::try_from(offset).unwrap_or(0),
            width,
            height,
            stride,
            pixel_len: pixel_len(format),
            seen: Cell::new(None),
            busy: Cell::new(false),
        };
        self.0.used.borrow_mut().push(buffer.range());
        id.set_handler(buffer);
    }

    fn handle_resize(&mut self, slf: &Rc<WlShmPool>, size: i32) {
        if let Ok(bytes) = u32::try_from(size)
            && bytes > self.0.size.get()
        {
            self.0.size.set(bytes);
            let grown = Memory::Pool {
                id: self.0.id,
                size: bytes,
            };
            self.0.owner.channel.borrow_mut().memory(grown);
        }
        slf.send_resize(size);
    }
}

impl WlBufferHandler for Buffer {
    fn handle_release(&mut self, slf: &Rc<WlBuffer>) {
        self.busy.set(false);
        slf.send_release();
    }

    fn handle_destroy(&mut self, slf: &Rc<WlBuffer>) {
        self.pool.forget(&self.range(), self.busy.get());
        slf.send_destroy();
    }
}

impl Pool {
    /// Removes a buffer's range; what no other buffer covers is given back, if it is worth a message.
    fn forget(&self, range: &Range<u32>, busy: bool) {
        let mut used = self.used.borrow_mut();
        if let Some(at) = used.iter().position(|each| each == range) {
            used.swap_remove(at);
        }
        let size = self.size.get();
        for rest in uncovered(range, &used) {
            let len = rest.end.min(size).saturating_sub(rest.start);
            if !busy && len >= WORTH_DISCARDING {
                let part = Memory::Discard {
                    id: self.id,
                    offset: rest.start,
                    len,
                };
                self.owner.channel.borrow_mut().memory(part);
            }
        }
    }
}

/// Returns the parts of `range` that none of `others` covers.
fn uncovered(range: &Range<u32>, others: &[Range<u32>]) -> Vec<Range<u32>> {
    let mut parts = vec![range.clone()];
    for other in others {
        parts = parts
            .into_iter()
            .flat_map(|part| {
                let left = part.start..part.end.min(other.start);
                let right = part.start.max(other.end)..part.end;
                [left, right]
            })
            .filter(|part| !part.is_empty())
            .collect();
    }
    parts
}

impl Buffer {
    /// Returns width and height in pixels.
    #[must_use]
    pub(crate) fn size(&self) -> (i32, i32) {
        (self.width, self.height)
    }

    /// Returns the commit of `surface` at which the host last got this buffer.
    #[must_use]
    pub(crate) fn seen_by(&self, surface: u64) -> Option<u64> {
        self.seen
            .get()
            .filter(|(seen, _)| *seen == surface)
            .map(|(_, commit)| commit)
    }

    fn range(&self) -> Range<u32> {
        let len = i64::from(self.stride) * i64::from(self.height);
        self.offset..self.offset.saturating_add(u32::try_from(len).unwrap_or(0))
    }

    /// Notes that the host has this buffer as of `commit` of `surface`.
    pub(crate) fn mark_seen(&self, surface: u64, commit: u64) {
        self.seen.set(Some((surface, commit)));
        self.busy.set(true);
    }

    /// Queues the pixels of `rect` and returns how many bytes these are.
    pub(crate) fn send(&self, object: &Rc<WlBuffer>, rect: Rect) -> u64 {
        let Some(grid) = self.grid(rect) else {
            return 0;
        };
        let pools = &self.pool.owner;
        let rows = Rows::new(self.pool.file.clone(), self.pool.id, grid);
        let len = rows.len();
        pools
            .sent
            .borrow_mut()
            .insert(self.pool.id, Rc::downgrade(object));
        pools.channel.borrow_mut().memory(Memory::Rows(rows));
        len
    }

    /// Returns where `rect` lies in the pool; nothing if the buffer does not fit its pool, which is
    /// for the compositor to complain about.
    fn grid(&self, rect: Rect) -> Option<Grid> {
        let stride = u32::try_from(self.stride).ok()?;
        let (x, y) = (u32::try_from(rect.x).ok()?, u32::try_from(rect.y).ok()?);
        let (width, rows) = (
            u32::try_from(rect.width).ok()?,
            u32::try_from(rect.height).ok()?,
        );
        let pixel = self.pixel_len?;
        let row_len = width.checked_mul(pixel)?;
        let offset = self
            .offset
            .checked_add(y.checked_mul(stride)?)?
            .checked_add(x.checked_mul(pixel)?)?;
        let end =
            u64::from(offset) + u64::from(stride) * u64::from(rows.max(1) - 1) + u64::from(row_len);
        let inside = end <= u64::from(self.pool.size.get()) && row_len <= stride;
        inside.then_some(Grid {
            offset,
            stride,
            row_len,
            rows,
        })
    }
}

/// Returns the handler data of a buffer, if it is one in shared memory.
pub(crate) fn with_buffer<R>(object: &Rc<WlBuffer>, act: impl FnOnce(&Buffer) -> R) -> Option<R> {
    object
        .try_get_handler_ref::<Buffer>()
        .ok()
        .map(|buffer| act(&buffer))
}

/// Returns the bytes of one pixel of a packed format.
fn pixel_len(format: WlShmFormat) -> Option<u32> {
    use WlShmFormat as F;
    match format {
        F::ARGB8888
        | F::XRGB8888
        | F::ABGR8888
        | F::XBGR8888
        | F::RGBA8888
        | F::RGBX8888
        | F::BGRA8888
        | F::BGRX8888
        | F::ARGB2101010
        | F::XRGB2101010
        | F::ABGR2101010
        | F::XBGR2101010
        | F::RGBA1010102
        | F::RGBX1010102
        | F::BGRA1010102
        | F::BGRX1010102 => Some(4),
        F::RGB888 | F::BGR888 => Some(3),
        F::RGB565
        | F::BGR565
        | F::ARGB4444
        | F::XRGB4444
        | F::ARGB1555
        | F::XRGB1555
        | F::ABGR4444
        | F::XBGR4444
        | F::RGBA4444
        | F::RGBX4444
        | F::BGRA4444
        | F::BGRX4444
        | F::ABGR1555
        | F::XBGR1555
        | F::RGBA5551
        | F::RGBX5551
        | F::BGRA5551
        | F::BGRX5551 => Some(2),
        F::ARGB16161616F
        | F::XRGB16161616F
        | F::ABGR16161616F
        | F::XBGR16161616F
        | F::ABGR16161616
        | F::XBGR16161616
        | F::ARGB16161616
        | F::XRGB16161616 => Some(8),
        F::R8 | F::C8 => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::uncovered;

    #[test]
    fn only_what_no_other_buffer_covers_is_free() {
        let free = |others: &[(u32, u32)]| -> Vec<(u32, u32)> {
            let others: Vec<_> = others.iter().map(|(start, end)| *start..*end).collect();
            uncovered(&(10..100), &others)
                .into_iter()
                .map(|part| (part.start, part.end))
                .collect()
        };
        assert_eq!(free(&[]), [(10, 100)]);
        assert_eq!(free(&[(20, 200)]), [(10, 20)]);
        assert_eq!(free(&[(40, 50), (0, 15)]), [(15, 40), (50, 100)]);
        assert!(free(&[(0, 100)]).is_empty());
    }
}
