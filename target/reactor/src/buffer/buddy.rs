//! Which parts of an arena are free: a buddy allocator over 4 KiB units, blocks of 1 to 256
//! units. It only counts; the memory itself is in `pool`. Allocation and release take at most
//! nine steps and touch no heap.
//!
//! Blocks that come back wait in a small stack per order for the next request of their size: the
//! usual request is for what was just returned, and joining buddies only to split them again would
//! be most of its cost. When no block of a size is left, the stacks are emptied first.
//!
//! Invariants: a block of order `n` starts at a multiple of `2^n` units; two buddies of one order
//! are never in the free lists together below the top order; `free_units` is the sum over all free
//! lists and stacks.

/// Smallest block in bytes: one page, one logical block.
pub(crate) const UNIT_BYTES: usize = 4096;
/// Orders 0 (4 KiB) to 8 (1 MiB).
pub(crate) const ORDERS: usize = 9;
/// Units in the largest block.
pub(crate) const MAX_UNITS: u32 = 1 << (ORDERS - 1);

/// Blocks that one stack holds.
const STACK_BLOCKS: usize = 32;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    /// Inside a block that starts at a lower unit.
    Inner,
    /// Start of a free block of this order.
    Free(u8),
    /// Start of an allocated block of this order.
    Used(u8),
    /// Start of a free block of this order that waits in a stack.
    Waiting(u8),
}

#[derive(Clone, Copy)]
struct Links {
    next: u32,
    previous: u32,
}

/// The free lists and the state of every unit.
pub(crate) struct Buddy {
    units: Box<[Unit]>,
    links: Box<[Links]>,
    heads: [u32; ORDERS],
    stacks: [Stack; ORDERS],
    free_units: u32,
}

/// Free blocks of one order, the last one returned on top.
#[derive(Clone, Copy)]
struct Stack {
    blocks: [u32; STACK_BLOCKS],
    len: usize,
}

impl Stack {
    const EMPTY: Stack = Stack { blocks: [NONE; STACK_BLOCKS], len: 0 };

    /// False when it is full.
    fn push(&mut self, unit: u32) -> bool {
        let Some(place) = self.blocks.get_mut(self.len) else { return false };
        *place = unit;
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<u32> {
        self.len = self.len.checked_sub(1)?;
        self.blocks.get(self.len).copied()
    }
}

/// The order of the smallest block that holds `bytes` (at most 1 MiB).
pub(crate) fn order_for(bytes: usize) -> u8 {
    let units = bytes.div_ceil(UNIT_BYTES).max(1).next_power_of_two();
    u8::try_from(units.trailing_zeros()).unwrap_or(u8::MAX)
}

impl Buddy {
    /// All of `units` free; `units` is a multiple of [`MAX_UNITS`].
    pub(crate) fn new(units: u32) -> Buddy {
        debug_assert!(units.is_multiple_of(MAX_UNITS));
        let mut buddy = Buddy {
            units: vec![Unit::Inner; units as usize].into(),
            links: vec![Links { next: NONE, previous: NONE }; units as usize].into(),
            heads: [NONE; ORDERS],
            stacks: [Stack::EMPTY; ORDERS],
            free_units: units,
        };
        for unit in (0..units).step_by(MAX_UNITS as usize).rev() {
            buddy.push(unit, top_order());
        }
        buddy
    }

    /// Free units in all.
    pub(crate) fn free_units(&self) -> u32 {
        self.free_units
    }

    /// The order of the allocated block that starts at `unit`.
    pub(crate) fn used_order(&self, unit: u32) -> u8 {
        match self.units[unit as usize] {
            Unit::Used(order) => order,
            state => unreachable!("unit {unit} is {state:?}, not the start of a used block"),
        }
    }

    /// Takes a block of `order`, splitting a larger one if it must; `None` when no block of this
    /// size is free.
    pub(crate) fn allocate(&mut self, order: u8) -> Option<u32> {
        let unit = match self.stacks[usize::from(order)].pop() {
            Some(unit) => unit,
            None => match self.split_off(order) {
                Some(unit) => unit,
                None if self.empty_stacks() => self.split_off(order)?,
                None => return None,
            },
        };
        self.units[unit as usize] = Unit::Used(order);
        self.free_units -= 1 << order;
        Some(unit)
    }

    fn split_off(&mut self, order: u8) -> Option<u32> {
        let found = (order..=top_order()).find(|&o| self.heads[usize::from(o)] != NONE)?;
        let unit = self.heads[usize::from(found)];
        self.remove(unit, found);
        for split in (order..found).rev() {
            self.push(unit + (1 << split), split);
        }
        Some(unit)
    }

    /// Joins what waits in the stacks with its free buddies; false when nothing waited.
    fn empty_stacks(&mut self) -> bool {
        let mut any = false;
        for order in 0..=top_order() {
            while let Some(unit) = self.stacks[usize::from(order)].pop() {
                self.join(unit, order);
                any = true;
            }
        }
        any
    }

    /// Gives the block that starts at `unit` back.
    pub(crate) fn release(&mut self, unit: u32) {
        let order = self.used_order(unit);
        self.free_units += 1 << order;
        if self.stacks[usize::from(order)].push(unit) {
            self.units[unit as usize] = Unit::Waiting(order);
        } else {
            self.join(unit, order);
        }
    }

    /// Joins a block with its free buddies and puts the whole on its free list.
    fn join(&mut self, unit: u32, mut order: u8) {
        let mut start = unit;
        self.units[unit as usize] = Unit::Inner;
        while order < top_order() {
            let buddy = start ^ (1 << order);
            if self.units[buddy as usize] != Unit::Free(order) {
                break;
            }
            self.remove(buddy, order);
            start = start.min(buddy);
            order += 1;
        }
        self.push(start, order);
    }

    fn push(&mut self, unit: u32, order: u8) {
        let head = self.heads[usize::from(order)];
        self.links[unit as usize] = Links { next: head, previous: NONE };
        if head != NONE {
            self.links[head as usize].previous = unit;
        }
        self.heads[usize::from(order)] = unit;
        self.units[unit as usize] = Unit::Free(order);
    }

    fn remove(&mut self, unit: u32, order: u8) {
        let Links { next, previous } = self.links[unit as usize];
        if previous == NONE {
            self.heads[usize::from(order)] = next;
        } else {
            self.links[previous as usize].next = next;
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        self.units[unit as usize] = Unit::Inner;
    }
}

const fn top_order() -> u8 {
    #[allow(clippy::cast_possible_truncation, reason = "ORDERS is 9")]
    let top = (ORDERS - 1) as u8;
    top
}
