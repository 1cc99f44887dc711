//! Turns between tenants at what they share: deficit round robin. Each round lets a tenant take a quantum, so that one with a thousand lines
//! gets no more than one with a single line, while both have something.

use std::collections::{BTreeMap, VecDeque};

use messaging::ids::TenantId;

/// Whose turn it is, remembered from one time to the next.
#[derive(Debug, Default)]
pub struct Turns {
    /// Whose turn was the last.
    last: Option<TenantId>,
    /// What it may still take: its turn was cut short, and goes on.
    rest: usize,
}

/// A tenant with lines that may have something.
struct Waiting<L> {
    tenant: TenantId,
    /// What it may take until its turn is over. What it could not use it does not keep: then it has nothing.
    deficit: usize,
    lines: VecDeque<L>,
}

impl Turns {
    /// Lets tenants take up to `most` units together. `take` takes up to so many from a line and says how many it took: fewer than asked for
    /// means that the line has no more now. Each tenant's lines are taken from in their order.
    pub fn serve<L>(&mut self, lines: BTreeMap<TenantId, Vec<L>>, quantum: usize, most: usize, mut take: impl FnMut(&L, usize) -> usize) {
        let mut waiting: VecDeque<Waiting<L>> =
            lines.into_iter().map(|(tenant, lines)| Waiting { tenant, deficit: 0, lines: lines.into() }).collect();
        let goes_on = |one: &Waiting<L>| self.rest > 0 && self.last == Some(one.tenant);
        let after = waiting.iter().take_while(|one| self.last.is_some_and(|last| one.tenant <= last) && !goes_on(one)).count();
        waiting.rotate_left(after);
        let mut turn = waiting.front().filter(|one| goes_on(one)).map_or(quantum, |_| self.rest);
        let mut left = most;
        while left > 0
            && let Some(mut one) = waiting.pop_front()
        {
            one.deficit += std::mem::replace(&mut turn, quantum).max(1);
            while let Some(line) = one.lines.front()
                && one.deficit.min(left) > 0
            {
                let asked = one.deficit.min(left);
                let took = take(line, asked).min(asked);
                one.deficit -= took;
                left -= took;
                if took < asked {
                    one.lines.pop_front();
                }
            }
            self.last = Some(one.tenant);
            self.rest = if one.lines.is_empty() { 0 } else { one.deficit };
            if !one.lines.is_empty() {
                waiting.push_back(one);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tenant(number: u8) -> TenantId {
        TenantId([number; 16])
    }

    /// Serves `times` times from tenants with so many lines of so many units; gives what each tenant got, by time.
    fn served(tenants: &[(usize, usize)], quantum: usize, most: usize, times: usize) -> Vec<Vec<usize>> {
        let mut have: BTreeMap<(u8, usize), usize> = BTreeMap::new();
        for (number, (lines, units)) in tenants.iter().enumerate() {
            have.extend((0..*lines).map(|line| ((number as u8, line), *units)));
        }
        let mut turns = Turns::default();
        let mut all = Vec::new();
        for _ in 0..times {
            let mut lines: BTreeMap<TenantId, Vec<(u8, usize)>> = BTreeMap::new();
            for (number, line) in have.iter().filter(|(_, units)| **units > 0).map(|(key, _)| *key) {
                lines.entry(tenant(number)).or_default().push((number, line));
            }
            let mut got = vec![0; tenants.len()];
            turns.serve(lines, quantum, most, |line, asked| {
                let units = have.get_mut(line).expect("a line of ours");
                let took = asked.min(*units);
                *units -= took;
                got[usize::from(line.0)] += took;
                took
            });
            all.push(got);
        }
        all
    }

    /// A name, each tenant's lines and what stands in each, how often they are served, and what each got by time.
    type Case<'c> = (&'c str, &'c [(usize, usize)], usize, Vec<Vec<usize>>);

    #[test]
    fn tenants_share_and_who_has_little_gets_it_at_once() {
        let cases: [Case<'_>; 7] = [
            ("alone it has all", &[(1, 100)], 2, vec![vec![64], vec![36]]),
            ("a thousand lines count as one tenant", &[(1_000, 32), (1, 32)], 1, vec![vec![32, 32]]),
            ("one in ten thousand", &[(400, 25), (1, 1)], 1, vec![vec![63, 1]]),
            ("short lines count by units, not by lines", &[(64, 1), (2, 32)], 1, vec![vec![32, 32]]),
            ("what one leaves others take", &[(1, 4), (1, 100), (1, 8)], 1, vec![vec![4, 52, 8]]),
            ("nothing for nobody", &[], 1, vec![vec![]]),
            // Of five two have a turn each time.
            (
                "who had no turn is the next",
                &[(9, 32), (9, 32), (9, 32), (9, 32), (9, 32)],
                5,
                vec![vec![32, 32, 0, 0, 0], vec![0, 0, 32, 32, 0], vec![32, 0, 0, 0, 32], vec![0, 32, 32, 0, 0], vec![0, 0, 0, 32, 32]],
            ),
        ];
        for (name, tenants, times, expected) in cases {
            assert_eq!(served(tenants, 32, 64, times), expected, "{name}");
        }
    }

    /// Over any time no two tenants that have something all along are far apart.
    #[test]
    fn nobody_falls_behind() {
        let got = served(&[(500, 1_000), (1, 100_000), (7, 100_000), (30, 5_000)], 32, 100, 200);
        let mut sums = vec![0; 4];
        for time in got {
            assert_eq!(time.iter().sum::<usize>(), 100, "the whole room is used");
            sums.iter_mut().zip(time).for_each(|(sum, more)| *sum += more);
            let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
            assert!(most - least <= 2 * 100, "{sums:?}");
        }
    }
}
