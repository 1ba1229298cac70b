//! Random numbers that follow from a seed (SplitMix64; Steele, Lea, Flood 2014), so that what fails once fails again.

/// A seed's choices.
pub struct Dice(u64);

impl Dice {
    /// The choices of one seed, which are the same in every run.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// Other dice, whose choices do not depend on how often these are thrown afterwards.
    pub fn split(&mut self) -> Self {
        Dice(self.next())
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True in so many of a hundred throws.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these, which are not none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of these, each as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, from: &[(usize, T)]) -> T {
        let mut at = self.below(from.iter().map(|(weight, _)| weight).sum());
        for (weight, what) in from {
            if at < *weight {
                return *what;
            }
            at -= weight;
        }
        unreachable!("the weights were summed")
    }
}
