//! Counts the allocations of this thread, and their bytes. A thread-local sum or two an allocation, so that peers that
//! allocate are not slowed by being counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// What was allocated and not given back: on this thread, so what moves between threads makes it wrong.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn add_one() {
    COUNT.with(|count| count.set(count.get() + 1));
}

fn add_bytes(bytes: usize, sign: i64) {
    HELD.with(|held| held.set(held.get().wrapping_add(sign.wrapping_mul(bytes as i64))));
}

#[expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait; every call goes to System unchanged")]
// SAFETY: each method hands its arguments to `System`, whose contract is the same; the counter is a
// const-initialised thread-local without a destructor, so touching it neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add_one();
        add_bytes(layout.size(), 1);
        // SAFETY: the caller's promise is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add_bytes(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add_one();
        add_bytes(size, 1);
        add_bytes(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The allocations this thread makes while `work` runs.
pub(super) fn during(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

/// The bytes that are held more after `work` than before it, allocated and given back on this thread.
pub(crate) fn held_by<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = HELD.with(Cell::get);
    let made = work();
    (made, HELD.with(Cell::get) - before)
}
