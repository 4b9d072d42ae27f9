//! The Mersenne twister MT19937 (Matsumoto and Nishimura 1998), as `at::mt19937`.

const WORDS: usize = 624;
/// How far ahead the recurrence looks.
const SHIFT: usize = 397;

#[derive(Clone, Debug)]
pub(super) struct Mersenne {
    words: Box<[u32; WORDS]>,
    /// The next word to hand out; `WORDS` when the block is used up.
    next: usize,
}

impl Mersenne {
    pub(super) fn new(seed: u32) -> Self {
        let mut words = Box::new([seed; WORDS]);
        for i in 1..WORDS {
            let previous = words[i - 1];
            words[i] = (previous ^ (previous >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Self { words, next: WORDS }
    }

    /// The engine in a stored state, or nothing if it is not one.
    pub(super) fn from_parts(words: &[u32], next: usize) -> Option<Self> {
        let words: Box<[u32; WORDS]> = Box::new(words.try_into().ok()?);
        // Of the first word only the top bit counts; a state that is zero otherwise would draw zeros for ever.
        let alive = words[0] & 0x8000_0000 != 0 || words[1..].iter().any(|&word| word != 0);
        (next <= WORDS && alive).then_some(Self { words, next })
    }

    pub(super) fn words(&self) -> &[u32] {
        &self.words[..]
    }

    pub(super) fn next_index(&self) -> usize {
        self.next
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let word = self.words[self.next];
        self.next += 1;
        temper(word)
    }

    /// As many draws as the present block of words has, but at most `n`; at least one, for `n` above zero.
    pub(super) fn take_u32(&mut self, n: usize) -> impl ExactSizeIterator<Item = u32> {
        if self.next == WORDS {
            self.refill();
        }
        let first = self.next;
        self.next = WORDS.min(first + n);
        self.words[first..self.next].iter().map(|&word| temper(word))
    }

    /// Two draws, the first in the high half, as `CPUGeneratorImpl::random64`.
    pub(super) fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    /// The next block of words. Each is made of three: its own, the following one and the one [`SHIFT`] after it, round the end.
    fn refill(&mut self) {
        let words = &mut self.words[..];
        // In parts without a division, so that the compiler can take several words at once.
        let (low, high) = words.split_at_mut(SHIFT);
        for (i, shifted) in high.iter().enumerate() {
            low[i] = shifted ^ twist(low[i], low[i + 1]);
        }
        for i in WORDS - SHIFT..WORDS - 1 {
            words[i] = words[i - (WORDS - SHIFT)] ^ twist(words[i], words[i + 1]);
        }
        words[WORDS - 1] = words[SHIFT - 1] ^ twist(words[WORDS - 1], words[0]);
        self.next = 0;
    }
}

/// The top bit of one word and the other bits of the next, times the recurrence's matrix.
fn twist(word: u32, next: u32) -> u32 {
    let mixed = (word & 0x8000_0000) | (next & 0x7fff_ffff);
    (mixed >> 1) ^ if mixed & 1 == 1 { 0x9908_b0df } else { 0 }
}

/// A number to hand out, from a word of the state.
fn temper(mut y: u32) -> u32 {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c_5680;
    y ^= (y << 15) & 0xefc6_0000;
    y ^ (y >> 18)
}
