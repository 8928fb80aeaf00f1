//! Keeps the allocator from asking for what the jail forbids.

#![expect(unsafe_code, reason = "UNSAFETY: the allocator is set up by a C call")]

/// Makes all threads allocate from one arena.
///
/// glibc gives each of the first threads an arena of its own, and before the ninth it opens a file of /sys to count
/// processors, which ends a jailed process. One arena also takes less memory, and no thread of a daemon or of a vCPU
/// allocates where it is in a hurry.
pub(super) fn share_one_arena() {
    // SAFETY: mallopt only sets a limit that the allocator reads when a thread allocates for the first time.
    let taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    assert_eq!(taken, 1, "the allocator knows arenas");
}
