//! The slots of a Cluster. Pure.

use crate::config::store_url::Address;

/// So many slots there are.
pub(super) const SLOTS: u16 = 16_384;

/// CRC16 as XMODEM has it, of every byte.
const TABLE: [u16; 256] = table();

/// The slot of a key: of what stands between its first `{` and the `}` after it, if that is something, else of the
/// whole.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ TABLE.get(usize::from(high ^ byte)).copied().unwrap_or_default()
    })
}

#[expect(clippy::indexing_slicing, reason = "at compile time, where it cannot be wrong unnoticed")]
const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

/// A range of slots and the master that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// From here.
    pub(super) first: u16,
    /// To here, included.
    pub(super) last: u16,
    /// Where the master is.
    pub(super) master: Address,
}

/// Which master has which slot.
#[derive(Debug)]
pub(super) struct SlotMap {
    masters: Vec<Address>,
    /// The place of each slot's master in `masters`.
    owners: Box<[Option<u16>]>,
}

impl SlotMap {
    /// As the ranges say; slots that are in none have no master.
    pub(super) fn new(ranges: &[Range]) -> Self {
        let mut map = Self { masters: Vec::new(), owners: vec![None; usize::from(SLOTS)].into() };
        for range in ranges {
            let place = map.place(&range.master);
            let slots = map.owners.get_mut(usize::from(range.first)..=usize::from(range.last));
            slots.into_iter().flatten().for_each(|owner| *owner = place);
        }
        map
    }

    /// The slot's master, if it is known.
    pub(super) fn master(&self, slot: u16) -> Option<&Address> {
        let owner = self.owners.get(usize::from(slot)).copied().flatten()?;
        self.masters.get(usize::from(owner))
    }

    /// Every master that is known, whether or not it has slots.
    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// The slot has moved.
    pub(super) fn moved(&mut self, slot: u16, to: &Address) {
        let place = self.place(to);
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = place;
        }
    }

    fn place(&mut self, master: &Address) -> Option<u16> {
        let known = self.masters.iter().position(|known| known == master);
        let place = known.unwrap_or_else(|| {
            self.masters.push(master.clone());
            self.masters.len() - 1
        });
        u16::try_from(place).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // CLUSTER KEYSLOT of redis-server 7.0.15
        let table = [
            ("", 0),
            ("foo", 12_182),
            ("somekey", 11_058),
            ("{foo}bar", 12_182),
            ("x{foo}bar", 12_182),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("gotrue:{0191d1a0-0000-4000-8000-000000000001}:marks", 11_355),
        ];
        for (key, slot) in table {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn a_map_knows_what_the_ranges_say_and_what_has_moved() {
        let range = |first, last, port| Range { first, last, master: at(port) };
        let mut map = SlotMap::new(&[range(0, 99, 1), range(200, 16_383, 2), range(150, 150, 1)]);
        let table =
            [(0, Some(1)), (99, Some(1)), (100, None), (150, Some(1)), (200, Some(2)), (16_383, Some(2))];
        for (slot, port) in table {
            assert_eq!(map.master(slot), port.map(at).as_ref(), "{slot}");
        }
        assert_eq!(map.master(16_384), None);
        map.moved(100, &at(2));
        map.moved(0, &at(3));
        map.moved(16_384, &at(3));
        assert_eq!((map.master(100), map.master(0)), (Some(&at(2)), Some(&at(3))));
        assert_eq!(map.masters(), [at(1), at(2), at(3)]);
    }

    #[test]
    fn ranges_that_make_no_sense_are_left_out() {
        let range = |first, last| Range { first, last, master: at(1) };
        let map = SlotMap::new(&[range(10, 5), range(16_000, 20_000)]);
        assert!((0..SLOTS).all(|slot| map.master(slot).is_none()));
    }
}
