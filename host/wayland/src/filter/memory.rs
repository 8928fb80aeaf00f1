//! Surfaces, pools and buffers of a guest, counted and measured on the host.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::fstat;
use wl_proxy::object::ObjectUtils;
use wl_proxy::protocols::wayland::wl_buffer::{WlBuffer, WlBufferHandler};
use wl_proxy::protocols::wayland::wl_compositor::{WlCompositor, WlCompositorHandler};
use wl_proxy::protocols::wayland::wl_shm::{WlShm, WlShmFormat, WlShmHandler};
use wl_proxy::protocols::wayland::wl_shm_pool::{WlShmPool, WlShmPoolHandler};
use wl_proxy::protocols::wayland::wl_surface::{WlSurface, WlSurfaceHandler};

use super::Context;
use crate::vm::{Counted, Held};

/// Handles `wl_compositor`.
pub(crate) struct CompositorHandler(pub(crate) Context);

impl WlCompositorHandler for CompositorHandler {
    fn handle_create_surface(&mut self, slf: &Rc<WlCompositor>, id: &Rc<WlSurface>) {
        match self.0.vm.hold(Counted::Surface) {
            None => self.0.refuse(slf.clone(), "too many surfaces"),
            Some(held) => {
                slf.send_create_surface(id);
                id.set_handler(Surface { _held: held });
            }
        }
    }
}

struct Surface {
    _held: Held,
}

impl WlSurfaceHandler for Surface {}

/// Handles `wl_shm`.
pub(crate) struct ShmHandler(pub(crate) Context);

impl WlShmHandler for ShmHandler {
    fn handle_create_pool(
        &mut self,
        slf: &Rc<WlShm>,
        id: &Rc<WlShmPool>,
        fd: &Rc<OwnedFd>,
        size: i32,
    ) {
        // On a stream the file is this process's own, so it can't shrink after this check. On one
        // machine it is the program's, and the compositor guards itself as it does without us.
        let fits = fits_file(fd, size);
        if size > 0 && !fits && !self.0.channel_is_direct() {
            return self.0.refuse(slf.clone(), "pool larger than its memory");
        }
        slf.send_create_pool(id, fd, size);
        id.set_handler(Pool {
            context: self.0.clone(),
            file: fd.clone(),
        });
    }
}

impl Context {
    fn channel_is_direct(&self) -> bool {
        !self.channel.borrow().status().copies
    }
}

struct Pool {
    context: Context,
    file: Rc<OwnedFd>,
}

impl WlShmPoolHandler for Pool {
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
        let bytes = i64::from(stride) * i64::from(height);
        let limit = self.context.vm.policy.limits.buffer_bytes;
        if u64::try_from(bytes).is_ok_and(|bytes| bytes > limit) {
            return self.context.refuse(slf.clone(), "buffer too large");
        }
        slf.send_create_buffer(id, offset, width, height, stride, format);
        id.set_handler(Buffer { width, height });
    }

    fn handle_resize(&mut self, slf: &Rc<WlShmPool>, size: i32) {
        if size > 0 && !fits_file(&self.file, size) && !self.context.channel_is_direct() {
            return self
                .context
                .refuse(slf.clone(), "pool larger than its memory");
        }
        slf.send_resize(size);
    }
}

struct Buffer {
    width: i32,
    height: i32,
}

impl WlBufferHandler for Buffer {}

/// Returns width and height of a buffer in shared memory.
pub(crate) fn buffer_size(buffer: &Rc<WlBuffer>) -> Option<(i32, i32)> {
    let handler = buffer.try_get_handler_ref::<Buffer>().ok()?;
    Some((handler.width, handler.height))
}

fn fits_file(file: &OwnedFd, size: i32) -> bool {
    fstat(file).is_ok_and(|stat| stat.st_size >= i64::from(size))
}
