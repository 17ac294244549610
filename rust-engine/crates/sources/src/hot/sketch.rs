//! How often names were asked for lately: a count-min sketch whose counts are halved from time to time.

/// Counters of a row; a power of two.
const WIDTH: usize = 1 << 16;
const DEPTH: usize = 4;
/// After how many additions all counts are halved.
const PERIOD: u32 = 10 * WIDTH as u32;

/// Counts by hash. Takes 256 KiB, whatever is counted.
#[derive(Debug)]
pub(super) struct Sketch {
    rows: Box<[u8]>,
    added: u32,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { rows: vec![0; WIDTH * DEPTH].into(), added: 0 }
    }
}

/// The places of a hash, one in each row.
fn places(hash: u64) -> impl Iterator<Item = usize> {
    let (low, high) = (hash & 0xffff_ffff, hash >> 32);
    (0..DEPTH as u64).map(move |row| {
        let place = low.wrapping_add(row.wrapping_mul(high | 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        row as usize * WIDTH + place as usize % WIDTH
    })
}

impl Sketch {
    pub(super) fn add(&mut self, hash: u64) {
        for place in places(hash) {
            self.rows[place] = self.rows[place].saturating_add(1);
        }
        self.added += 1;
        if self.added >= PERIOD {
            self.added = 0;
            self.rows.iter_mut().for_each(|count| *count /= 2);
        }
    }

    /// At least how often a hash was added, fading with time.
    pub(super) fn count(&self, hash: u64) -> u8 {
        places(hash).map(|place| self.rows[place]).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_forgets() {
        let mut sketch = Sketch::default();
        let hash = |n: u64| n.wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(32) ^ n;
        for n in 0..1_000 {
            sketch.add(hash(n));
        }
        for _ in 0..9 {
            sketch.add(hash(7));
        }
        assert_eq!(sketch.count(hash(7)), 10);
        assert!((0..1_000).filter(|n| sketch.count(hash(*n)) == 1).count() > 950);
        for n in 0..PERIOD {
            sketch.add(hash(u64::from(n) + 1_000_000));
        }
        assert!(sketch.count(hash(7)) < 20, "{}", sketch.count(hash(7)));
    }
}
