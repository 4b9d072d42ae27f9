//! numpy's way to make many independent seeds of one (`numpy.random.SeedSequence`, after O'Neill's `seed_seq`).

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_L: u32 = 0xca01_f9dd;
const MIX_R: u32 = 0x4973_f715;

/// The first `n` words of `SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size).generate_state(n)`.
pub(crate) fn seeds(entropy: u64, spawn_key: &[u64], pool_size: usize, n: usize) -> Vec<u32> {
    let mut words = split(entropy);
    if !spawn_key.is_empty() && words.len() < pool_size {
        words.resize(pool_size, 0);
    }
    words.extend(spawn_key.iter().flat_map(|&key| split(key)));

    let mut factor = INIT_A;
    let mut hash = |value: u32| {
        let value = value ^ factor;
        factor = factor.wrapping_mul(MULT_A);
        let value = value.wrapping_mul(factor);
        value ^ (value >> 16)
    };
    let mut pool: Vec<u32> = (0..pool_size)
        .map(|i| hash(words.get(i).copied().unwrap_or(0)))
        .collect();
    for source in 0..pool_size {
        for target in (0..pool_size).filter(|&target| target != source) {
            pool[target] = mix(pool[target], hash(pool[source]));
        }
    }
    for &word in words.iter().skip(pool_size) {
        for value in &mut pool {
            *value = mix(*value, hash(word));
        }
    }

    let mut factor = INIT_B;
    pool.iter()
        .cycle()
        .take(n)
        .map(|value| {
            let value = value ^ factor;
            factor = factor.wrapping_mul(MULT_B);
            let value = value.wrapping_mul(factor);
            value ^ (value >> 16)
        })
        .collect()
}

/// A number's 32-bit words, the lowest first, without leading zeros.
fn split(number: u64) -> Vec<u32> {
    let (low, high) = (number as u32, (number >> 32) as u32);
    if high == 0 { vec![low] } else { vec![low, high] }
}

fn mix(x: u32, y: u32) -> u32 {
    let mixed = MIX_L.wrapping_mul(x).wrapping_sub(MIX_R.wrapping_mul(y));
    mixed ^ (mixed >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numpys() {
        // numpy.random.SeedSequence(entropy, spawn_key=..., pool_size=24).generate_state(n)
        assert_eq!(
            seeds(0, &[], 24, 3),
            [4_025_752_534, 2_687_548_107, 2_326_983_537]
        );
        assert_eq!(
            seeds(0, &[5, 3], 24, 4),
            [2_230_703_150, 3_316_687_717, 788_529_862, 3_225_615_604]
        );
        let (entropy, spawn_key) = ((1 << 40) + 7, [(1 << 33) + 1, 34]);
        assert_eq!(seeds(entropy, &spawn_key, 24, 2), [1_614_522_446, 2_128_473_930]);
    }
}
