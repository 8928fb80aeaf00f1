//! Which part of a buffer the other side has not seen yet, in the container.
//!
//! A client's damage is relative to the last commit of the *surface*, but what has to be copied is
//! relative to the last time this *buffer* was sent. So a surface keeps the damage of its last
//! commits, and a buffer remembers at which of them it was sent.

use std::collections::VecDeque;

/// How many commits a surface remembers. Clients rotate through two to four buffers; a buffer older
/// than this is sent whole.
const HISTORY: usize = 16;

/// More rectangles than this become their bounding box.
const MAX_RECTS: usize = 24;

/// A rectangle in buffer pixels; always inside its buffer and never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    /// Left edge.
    pub(crate) x: i32,
    /// Upper edge.
    pub(crate) y: i32,
    /// Width.
    pub(crate) width: i32,
    /// Height.
    pub(crate) height: i32,
}

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Everything, or nobody can tell.
    All,
    /// These rectangles.
    Rects(Vec<Rect>),
}

/// The damage of a surface's last commits.
#[derive(Debug, Default)]
pub(crate) struct History {
    commits: VecDeque<Damage>,
    newest: u64,
}

impl Rect {
    /// Returns the part of the rectangle inside a buffer of `width` by `height`.
    #[must_use]
    pub(crate) fn clipped(self, width: i32, height: i32) -> Option<Self> {
        let left = self.x.clamp(0, width);
        let top = self.y.clamp(0, height);
        let right = self.x.saturating_add(self.width).clamp(0, width);
        let bottom = self.y.saturating_add(self.height).clamp(0, height);
        (right > left && bottom > top).then(|| Self {
            x: left,
            y: top,
            width: right - left,
            height: bottom - top,
        })
    }

    /// Returns the rectangle with all its numbers multiplied, for buffer scales.
    #[must_use]
    pub(crate) fn scaled(self, by: i32) -> Self {
        Self {
            x: self.x.saturating_mul(by),
            y: self.y.saturating_mul(by),
            width: self.width.saturating_mul(by),
            height: self.height.saturating_mul(by),
        }
    }

    fn union(self, other: Self) -> Self {
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self {
            x,
            y,
            width: right - x,
            height: bottom - y,
        }
    }

    fn area(self) -> i64 {
        i64::from(self.width) * i64::from(self.height)
    }
}

impl History {
    /// Notes the damage of a new commit and returns the commit's number.
    pub(crate) fn push(&mut self, damage: Damage) -> u64 {
        if self.commits.len() == HISTORY {
            self.commits.pop_front();
        }
        self.commits.push_back(damage);
        self.newest += 1;
        self.newest
    }

    /// Returns what has changed since commit `seen`, clipped to a buffer of `width` by `height`.
    #[must_use]
    pub(crate) fn since(&self, seen: Option<u64>, width: i32, height: i32) -> Vec<Rect> {
        let whole = Rect {
            x: 0,
            y: 0,
            width,
            height,
        };
        let missed = seen.and_then(|seen| usize::try_from(self.newest - seen).ok());
        let Some(missed) = missed.filter(|missed| *missed <= self.commits.len()) else {
            return vec![whole];
        };
        let mut rects = Vec::new();
        for damage in self.commits.iter().rev().take(missed) {
            match damage {
                Damage::All => return vec![whole],
                Damage::Rects(more) => {
                    rects.extend(more.iter().filter_map(|rect| rect.clipped(width, height)));
                }
            }
        }
        merged(rects)
    }
}

/// Joins rectangles where one long copy is cheaper than several that overlap or are many.
fn merged(mut rects: Vec<Rect>) -> Vec<Rect> {
    rects.sort_unstable_by_key(|rect| (rect.y, rect.x));
    rects.dedup();
    let Some(bounds) = rects.iter().copied().reduce(Rect::union) else {
        return rects;
    };
    let total: i64 = rects.iter().map(|rect| rect.area()).sum();
    if rects.len() > MAX_RECTS || total >= bounds.area() {
        return vec![bounds];
    }
    rects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: i32, y: i32, width: i32, height: i32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn an_unseen_buffer_is_sent_whole() {
        let mut history = History::default();
        history.push(Damage::Rects(vec![rect(1, 1, 2, 2)]));
        assert_eq!(history.since(None, 10, 10), [rect(0, 0, 10, 10)]);
    }

    #[test]
    fn the_second_of_two_buffers_gets_the_damage_of_both_commits() {
        let mut history = History::default();
        let first = history.push(Damage::All);
        history.push(Damage::Rects(vec![rect(0, 0, 1, 1)]));
        history.push(Damage::Rects(vec![rect(5, 5, 1, 1)]));
        assert_eq!(
            history.since(Some(first), 10, 10),
            [rect(0, 0, 1, 1), rect(5, 5, 1, 1)]
        );
    }

    #[test]
    fn a_buffer_older_than_the_history_is_sent_whole() {
        let mut history = History::default();
        let first = history.push(Damage::All);
        for _ in 0..=HISTORY {
            history.push(Damage::Rects(Vec::new()));
        }
        assert_eq!(history.since(Some(first), 4, 4), [rect(0, 0, 4, 4)]);
    }

    #[test]
    fn damage_of_infinite_size_is_clipped() {
        let mut history = History::default();
        let first = history.push(Damage::All);
        history.push(Damage::Rects(vec![
            rect(i32::MIN, 3, i32::MAX, i32::MAX),
            rect(2, 2, i32::MAX, 1),
        ]));
        assert_eq!(history.since(Some(first), 10, 10), [rect(2, 2, 8, 1)]);
    }

    #[test]
    fn overlapping_rectangles_become_one() {
        let mut history = History::default();
        let first = history.push(Damage::All);
        history.push(Damage::Rects(vec![rect(0, 0, 8, 8), rect(1, 0, 8, 8)]));
        assert_eq!(history.since(Some(first), 10, 10), [rect(0, 0, 9, 8)]);
    }
}
