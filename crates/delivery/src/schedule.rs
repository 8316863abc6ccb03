//! Which message is attempted next. Pure: no I/O, no runtime, no clock.
//!
//! A *flow* is what shares a limit (a recipient domain). Messages wait by flow
//! and priority. The next one is of the highest priority that has a flow below
//! its limit; within a priority the flows take turns.
//!
//! Invariants, each a property test:
//!
//! - Never more than the limit of a flow, nor the total, are running.
//! - Every message leaves exactly once: by [`Schedule::choose`] or by
//!   [`Schedule::clear`].
//! - No message is chosen while one of higher priority could be.
//! - Within a priority a flow that could be served waits for at most one turn
//!   of every other flow.
//!
//! A flow in which many messages wait is to be blocked at the subscription, so
//! that it cannot fill the window ([`Schedule::take_flow_changes`]); it is
//! unblocked when half of them have gone, early enough for its slots never to
//! run dry.
//!
//! Every step costs constant time on average: a flow stands in the ring of a
//! priority at most once, and leaves the rings while it is at its limit.

use std::collections::{BTreeMap, HashMap, VecDeque};

use posthaste_broker::FlowKey;
use posthaste_model::Domain;

/// Priorities are 0 to 9.
const PRIORITIES: usize = 10;

/// How many attempts may run at once.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// In all.
    pub total: u32,
    /// For each domain that has no limit of its own.
    pub domain: u32,
    /// Limits of single domains (UC9).
    pub domains: HashMap<Domain, u32>,
}

/// What the subscription is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowChange {
    /// Enough of this flow is waiting.
    Block(FlowKey),
    /// There is room again.
    Unblock(FlowKey),
}

/// The waiting messages and the running counts.
#[derive(Debug)]
pub struct Schedule<T> {
    total: u32,
    domain: u32,
    domains: HashMap<Box<str>, u32>,
    flows: HashMap<FlowKey, Flow<T>>,
    rings: [VecDeque<FlowKey>; PRIORITIES],
    running: u32,
    waiting: usize,
    changes: Vec<FlowChange>,
}

#[derive(Debug)]
struct Flow<T> {
    limit: u32,
    running: u32,
    waiting: usize,
    by_priority: BTreeMap<u8, VecDeque<T>>,
    /// Bit `p` is set while the flow stands in ring `p`.
    in_rings: u16,
    blocked: bool,
}

impl<T> Flow<T> {
    const fn has_room(&self) -> bool {
        self.running < self.limit
    }

    const fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    const fn block_above(&self) -> usize {
        let twice = self.limit as usize * 2;
        if twice > 8 { twice } else { 8 }
    }
}

impl<T> Schedule<T> {
    /// An empty schedule. A limit of 0 counts as 1.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let own = limits.domains.iter();
        Self {
            total: limits.total.max(1),
            domain: limits.domain.max(1),
            domains: own.map(|(name, limit)| (name.as_str().into(), (*limit).max(1))).collect(),
            flows: HashMap::new(),
            rings: Default::default(),
            running: 0,
            waiting: 0,
            changes: Vec::new(),
        }
    }

    /// Messages that wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Messages that were chosen and have not finished.
    #[must_use]
    pub const fn running(&self) -> u32 {
        self.running
    }

    /// Flows that are blocked.
    #[must_use]
    pub fn blocked(&self) -> usize {
        self.flows.values().filter(|flow| flow.blocked).count()
    }

    /// Adds a message. A priority over 9 counts as 9.
    pub fn add(&mut self, key: &FlowKey, priority: u8, message: T) {
        let priority = priority.min(9);
        if !self.flows.contains_key(key) {
            let limit = self.domains.get(key.as_str()).copied().unwrap_or(self.domain);
            self.flows.insert(
                key.clone(),
                Flow {
                    limit,
                    running: 0,
                    waiting: 0,
                    by_priority: BTreeMap::new(),
                    in_rings: 0,
                    blocked: false,
                },
            );
        }
        let Some(flow) = self.flows.get_mut(key) else { return };
        flow.by_priority.entry(priority).or_default().push_back(message);
        flow.waiting += 1;
        self.waiting += 1;
        if !flow.blocked && flow.waiting > flow.block_above() {
            flow.blocked = true;
            self.changes.push(FlowChange::Block(key.clone()));
        }
        Self::enter_ring(&mut self.rings, flow, key, priority);
    }

    /// Chooses the next message, which is running from now on until
    /// [`Self::finish`]; `None` when there is none or no room.
    pub fn choose(&mut self) -> Option<T> {
        if self.running >= self.total {
            return None;
        }
        for priority in (0..=9u8).rev() {
            while let Some(key) = self.rings[usize::from(priority)].pop_front() {
                let Some(flow) = self.flows.get_mut(&key) else { continue };
                flow.in_rings &= !(1 << priority);
                if !flow.has_room() {
                    // finish() puts it back.
                    continue;
                }
                let Some(queue) = flow.by_priority.get_mut(&priority) else { continue };
                let Some(message) = queue.pop_front() else { continue };
                if queue.is_empty() {
                    flow.by_priority.remove(&priority);
                }
                flow.waiting -= 1;
                flow.running += 1;
                self.waiting -= 1;
                self.running += 1;
                if flow.blocked && flow.waiting <= flow.block_above() / 2 {
                    flow.blocked = false;
                    self.changes.push(FlowChange::Unblock(key.clone()));
                }
                Self::enter_ring(&mut self.rings, flow, &key, priority);
                return Some(message);
            }
        }
        None
    }

    /// A message of this flow that was chosen is no longer running.
    pub fn finish(&mut self, key: &FlowKey) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.running == 0 {
            return;
        }
        flow.running -= 1;
        self.running -= 1;
        if flow.is_idle() {
            self.flows.remove(key);
            return;
        }
        for priority in 0..=9u8 {
            Self::enter_ring(&mut self.rings, flow, key, priority);
        }
    }

    /// Takes out all that waits, in no order, and forgets the blocks: for
    /// when the subscription ended.
    pub fn clear(&mut self) -> Vec<T> {
        let mut cleared = Vec::with_capacity(self.waiting);
        for flow in self.flows.values_mut() {
            cleared.extend(std::mem::take(&mut flow.by_priority).into_values().flatten());
            flow.waiting = 0;
            flow.in_rings = 0;
            flow.blocked = false;
        }
        self.flows.retain(|_, flow| !flow.is_idle());
        self.rings.iter_mut().for_each(VecDeque::clear);
        self.waiting = 0;
        self.changes.clear();
        cleared
    }

    /// What is to be told to the subscription since the last call, in order.
    pub fn take_flow_changes(&mut self) -> Vec<FlowChange> {
        std::mem::take(&mut self.changes)
    }

    fn enter_ring(
        rings: &mut [VecDeque<FlowKey>; PRIORITIES],
        flow: &mut Flow<T>,
        key: &FlowKey,
        priority: u8,
    ) {
        let bit = 1 << priority;
        let waits = flow.by_priority.contains_key(&priority);
        if waits && flow.has_room() && flow.in_rings & bit == 0 {
            flow.in_rings |= bit;
            rings[usize::from(priority)].push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(name: u8) -> FlowKey {
        FlowKey::new(&format!("d{name}.example"))
    }

    fn limits(total: u32, domain: u32) -> Limits {
        let own = [("d1.example".parse().unwrap(), 1), ("d2.example".parse().unwrap(), 3)];
        Limits { total, domain, domains: own.into() }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add { flow: u8, priority: u8 },
        Next,
        Finish { pick: prop::sample::Index },
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0u8..6, 0u8..10).prop_map(|(flow, priority)| Step::Add { flow, priority }),
            6 => Just(Step::Next),
            4 => any::<prop::sample::Index>().prop_map(|pick| Step::Finish { pick }),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 1..300)
    }

    /// The same, slow and obvious.
    #[derive(Default)]
    struct Model {
        waiting: Vec<(u8, u8, usize)>,
        running: Vec<u8>,
    }

    impl Model {
        fn room(&self, flow: u8) -> bool {
            let limit = match flow {
                1 => 1,
                2 => 3,
                _ => 2,
            };
            self.running.iter().filter(|running| **running == flow).count() < limit
        }

        fn best(&self) -> Option<u8> {
            let open = self.waiting.iter().filter(|(flow, ..)| self.room(*flow));
            open.map(|(_, priority, _)| *priority).max()
        }
    }

    proptest! {
        #[test]
        fn limits_priorities_and_exactly_once(steps in steps(), total in 1u32..8) {
            let mut schedule = Schedule::new(&limits(total, 2));
            let mut model = Model::default();
            let mut blocked = BTreeSet::new();
            for (id, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add { flow, priority } => {
                        schedule.add(&key(flow), priority, (flow, priority, id));
                        model.waiting.push((flow, priority, id));
                    }
                    Step::Next => match schedule.choose() {
                        Some(message) => {
                            let (flow, priority, id) = message;
                            prop_assert!(model.running.len() < total as usize);
                            prop_assert!(model.room(flow), "limit of {}", flow);
                            prop_assert_eq!(Some(priority), model.best());
                            let position = model.waiting.iter().position(|m| *m == message);
                            prop_assert!(position.is_some(), "left twice");
                            // Within a flow and a priority in order.
                            let is_earlier = |(f, p, i): &(u8, u8, usize)| {
                                (*f, *p) == (flow, priority) && *i < id
                            };
                            prop_assert!(!model.waiting.iter().any(is_earlier), "order");
                            model.waiting.remove(position.unwrap());
                            model.running.push(flow);
                        }
                        None => prop_assert!(
                            model.running.len() >= total as usize || model.best().is_none()
                        ),
                    },
                    Step::Finish { pick } if !model.running.is_empty() => {
                        let flow = model.running.swap_remove(pick.index(model.running.len()));
                        schedule.finish(&key(flow));
                    }
                    Step::Finish { .. } => {}
                    Step::Clear => {
                        let mut cleared = schedule.clear();
                        cleared.sort_by_key(|(.., id)| *id);
                        prop_assert_eq!(cleared, std::mem::take(&mut model.waiting));
                        blocked.clear();
                    }
                }
                for change in schedule.take_flow_changes() {
                    match change {
                        FlowChange::Block(key) => prop_assert!(blocked.insert(key)),
                        FlowChange::Unblock(key) => prop_assert!(blocked.remove(&key)),
                    }
                }
                prop_assert_eq!(schedule.waiting(), model.waiting.len());
                prop_assert_eq!(schedule.running() as usize, model.running.len());
                prop_assert_eq!(schedule.blocked(), blocked.len());
                for flow in 0..6u8 {
                    let waiting = model.waiting.iter().filter(|(f, ..)| *f == flow).count();
                    let is_blocked = blocked.contains(&key(flow));
                    prop_assert!(waiting <= 8 || is_blocked, "{} wait unblocked", waiting);
                    prop_assert!(waiting > 4 || !is_blocked, "{} wait blocked", waiting);
                }
            }
        }

        #[test]
        fn flows_take_turns(
            backlog in prop::collection::vec(1usize..40, 2..8),
            total in 1u32..5,
        ) {
            // Flow n has backlog[n] messages; everything finishes at once in
            // the order in which it was chosen.
            let mut schedule = Schedule::new(&Limits { total, domain: 2, ..Limits::default() });
            for (flow, count) in backlog.iter().enumerate() {
                for _ in 0..*count {
                    schedule.add(&key(flow as u8), 5, flow);
                }
            }
            let mut left = backlog.clone();
            let mut since = vec![0usize; backlog.len()];
            let mut running = VecDeque::new();
            let mut served = 0;
            while served < backlog.iter().sum::<usize>() {
                while let Some(flow) = schedule.choose() {
                    running.push_back(flow);
                    left[flow] -= 1;
                    served += 1;
                    since[flow] = 0;
                    for other in (0..backlog.len()).filter(|other| *other != flow) {
                        since[other] += 1;
                        let bound = backlog.len() * (total as usize + 1);
                        prop_assert!(left[other] == 0 || since[other] <= bound, "starved");
                    }
                }
                let flow = running.pop_front();
                prop_assert!(flow.is_some(), "nothing runs and nothing is chosen");
                schedule.finish(&key(flow.unwrap() as u8));
            }
            prop_assert!(left.iter().all(|left| *left == 0));
        }
    }

    #[test]
    fn a_flow_at_its_limit_holds_nobody_up() {
        let mut schedule = Schedule::new(&limits(100, 20));
        for id in 0..1000 {
            schedule.add(&key(1), 9, ("slow", id));
        }
        schedule.add(&key(3), 0, ("other", 0));
        assert_eq!(schedule.choose(), Some(("slow", 0)));
        assert_eq!(schedule.choose(), Some(("other", 0)));
        assert_eq!(schedule.choose(), None);
        schedule.add(&key(3), 0, ("other", 1));
        assert_eq!(schedule.choose(), Some(("other", 1)));
        schedule.finish(&key(1));
        assert_eq!(schedule.choose(), Some(("slow", 1)));
    }

    #[test]
    fn a_higher_priority_overtakes_in_its_own_flow() {
        let mut schedule = Schedule::new(&limits(100, 20));
        schedule.add(&key(1), 1, "low");
        schedule.add(&key(1), 1, "low");
        assert_eq!(schedule.choose(), Some("low"));
        schedule.add(&key(1), 8, "high");
        assert_eq!(schedule.choose(), None);
        schedule.finish(&key(1));
        assert_eq!(schedule.choose(), Some("high"));
    }

    #[test]
    fn an_idle_flow_is_forgotten() {
        let mut schedule = Schedule::new(&limits(100, 20));
        schedule.add(&key(4), 5, ());
        assert_eq!(schedule.choose(), Some(()));
        schedule.finish(&key(4));
        schedule.finish(&key(4));
        assert_eq!(schedule.flows.len(), 0);
        assert_eq!(schedule.running(), 0);
    }
}
