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
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Two draws, the first in the high half, as `CPUGeneratorImpl::random64`.
    pub(super) fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    fn refill(&mut self) {
        for i in 0..WORDS {
            let mixed = (self.words[i] & 0x8000_0000) | (self.words[(i + 1) % WORDS] & 0x7fff_ffff);
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + SHIFT) % WORDS] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }
}
