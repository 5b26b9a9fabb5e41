//! A bounded map of what was used recently.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: when the young one is full, it takes the place of the old one.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// The size of a generation.
    most: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Recent {
            most,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn keep(&mut self, key: K, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_kept_for_long_is_dropped() {
        let mut recent = Recent::new(2);
        (0..5).for_each(|number| recent.keep(number, number));
        let kept: Vec<_> = (0..5)
            .filter(|number| recent.get(number).is_some())
            .collect();
        assert_eq!(kept, [2, 3, 4]);
    }
}
