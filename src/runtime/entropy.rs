//! Randomness from the operating system: node ids and session ids, never anything a replica must agree on.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number that is not zero.
pub fn nonzero_u64() -> u64 {
    // std seeds its maps' hashers from the operating system and changes the seed with each one.
    loop {
        let random = RandomState::new().build_hasher().finish();
        if random != 0 {
            return random;
        }
    }
}
