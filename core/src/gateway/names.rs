//! Who is on the other side: proxies for those over there, announcements of those here.

use super::control::Control;
use super::{Export, Gateway, Line, Proxy, SCAN, Transfer, Waiting};
use crate::endpoint::{Endpoint, Register};
use crate::fabric::{HeldState, NAME_LEN, Status};
use crate::message::KernelId;
use crate::place::Place;
use crate::platform::Platform;
use crate::seat::Seat;
use crate::sync::ReachesHere;

impl<
    'f,
    L: Platform + Clone,
    const KERNELS: usize,
    const SLOTS: usize,
    const PAYLOAD: usize,
    const FRAMES: usize,
    S: ReachesHere,
> Gateway<'f, '_, L, KERNELS, SLOTS, PAYLOAD, FRAMES, S>
{
    /// Makes sure that the other side knows a sender; `false` if it cannot.
    #[inline(never)]
    pub(super) fn introduce(&mut self, id: KernelId) -> bool {
        let Some(place) = Place::new(id.index()) else { return false };
        let Export { id: known, refused, .. } = self.exports[place];
        if known == id {
            return !refused;
        }
        // A sender that has left has no name any more.
        if !self.may_export(place, id) || self.endpoint.fabric().name(id).is_none() {
            return false;
        }
        if !known.is_none() && !self.say_gone(known) {
            return false;
        }
        self.exports[place] = Export::NONE;
        self.announce_one(place, id, self.endpoint.platform().now_ns())
    }

    fn may_export(&self, place: Place<KERNELS>, id: KernelId) -> bool {
        let own =
            self.endpoint.id() == id || self.proxies[place].as_ref().is_some_and(|proxy| proxy.endpoint.id() == id);
        !own && (self.config.export_all || self.listed[place] == id)
    }

    #[inline(never)]
    fn say_gone(&mut self, id: KernelId) -> bool {
        self.say(&Control::Withdraw { id })
    }

    #[inline(never)]
    fn announce_one(&mut self, place: Place<KERNELS>, id: KernelId, now_ns: u64) -> bool {
        let Some(name) = self.endpoint.fabric().name(id) else { return false };
        let said = self.say(&Control::Announce { id, name: *name.bytes() });
        if said {
            self.exports[place] = Export { id, announced_ns: now_ns, refused: false, gone: false };
        }
        said
    }

    /// Looks at some places of the table, and tells the other side who has come and who has left.
    #[inline(never)]
    pub(super) fn announce(&mut self, now_ns: u64) -> bool {
        if !self.is_connected() {
            return false;
        }
        let mut worked = false;
        for _ in 0..SCAN.min(KERNELS) {
            let place = self.next_place;
            self.next_place = place.next();
            let Some(state) = self.endpoint.fabric().state(place.index()) else { return worked };
            let id = KernelId::new(place.index() as u16, state.generation);
            let here = state.status == Some(Status::Registered) && self.may_export(place, id);
            let export = self.exports[place];
            let known = !export.id.is_none();
            if known && (!here || export.id != id) {
                if !export.gone {
                    self.exports[place].gone = true;
                } else if self.say_gone(export.id) {
                    self.exports[place] = Export::NONE;
                    worked = true;
                }
                continue;
            }
            let due = !known || now_ns.saturating_sub(export.announced_ns) >= self.config.silence_ns / 4;
            if here && due {
                worked |= self.announce_one(place, id, now_ns);
            }
        }
        worked
    }

    #[inline(never)]
    pub(super) fn on_announce(&mut self, id: KernelId, name: &[u8; NAME_LEN]) {
        if self.find_proxy(id).is_some() {
            return;
        }
        let text = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let who = core::str::from_utf8(text).ok().and_then(|name| Register::new(name).ok());
        let who = who.filter(|_| id.generation() != 0);
        if !who.is_some_and(|who| self.stand_for(id, &who)) {
            self.stats.refused = self.stats.refused.wrapping_add(1);
            if let Some(place) = self.refusals.get_mut(self.refusal_count) {
                *place = id;
                self.refusal_count += 1;
            }
        }
    }

    /// Registers a proxy; `false` if that cannot be.
    #[inline(never)]
    fn stand_for(&mut self, remote: KernelId, who: &Register) -> bool {
        let fabric = self.endpoint.fabric();
        let platform = self.endpoint.platform().clone();
        let Ok(taken) = fabric.take_place(who, platform.owner()) else { return false };
        let seat = &mut self.proxies[taken.place()];
        if seat.as_ref().is_some() {
            // Only if someone writes over the fabric's table.
            fabric.give_back(taken);
            return false;
        }
        // SAFETY: every field is written.
        unsafe {
            seat.fill(|at| {
                let to = at.as_mut_ptr();
                let endpoint = Endpoint::open(&mut *(&raw mut (*to).endpoint).cast(), fabric, platform, taken, who);
                (&raw mut (*to).before).write(endpoint.last_sequence());
                (&raw mut (*to).shift).write(None);
                (&raw mut (*to).remote).write(remote);
                (&raw mut (*to).closed).write(false);
                (&raw mut (*to).held).write(HeldState::new());
                (&raw mut (*to).outstanding).write(0);
                (&raw mut (*to).waiting).write(Waiting::NONE);
            });
        }
        true
    }

    pub(super) fn refuse(&mut self) -> bool {
        let mut worked = false;
        while let Some(last) = self.refusal_count.checked_sub(1) {
            let Some(&id) = self.refusals.get(last) else { break };
            if !self.say(&Control::Refuse { id }) {
                break;
            }
            self.refusal_count = last;
            worked = true;
        }
        worked
    }

    /// The place of the proxy of a kernel over there.
    #[inline(never)]
    pub(super) fn find_proxy(&mut self, remote: KernelId) -> Option<Place<KERNELS>> {
        let hint = Place::new(remote.index() % KERNELS)?;
        let known = self.hints[hint];
        let stands_for = |proxies: &[Seat<Proxy<'f, L, KERNELS, SLOTS, PAYLOAD, S>>; KERNELS],
                          place: Place<KERNELS>| {
            proxies[place].as_ref().is_some_and(|proxy| proxy.remote == remote && !proxy.closed)
        };
        if stands_for(&self.proxies, known) {
            return Some(known);
        }
        let found = Place::all().find(|&place| stands_for(&self.proxies, place))?;
        self.hints[hint] = found;
        Some(found)
    }

    /// The kernel has left over there.
    #[inline(never)]
    pub(super) fn close(&mut self, place: Place<KERNELS>) {
        if let Some(proxy) = self.proxies[place].as_mut()
            && !proxy.closed
        {
            proxy.closed = true;
            proxy.endpoint.close();
        }
        self.bury(place);
    }

    /// Frees the place of a closed proxy of which nothing is left to be decided.
    pub(super) fn bury(&mut self, place: Place<KERNELS>) {
        if let Some(proxy) = self.proxies[place].as_ref()
            && proxy.closed
            && proxy.held.len() == 0
            && proxy.outstanding == 0
        {
            self.proxies[place].clear();
        }
    }

    /// The other side begins again or leaves: its kernels and its messages are no more.
    #[inline(never)]
    pub(super) fn forget(&mut self) {
        self.transfers.fill(Transfer::FREE);
        self.transfer_count = 0;
        self.waiting = Line::EMPTY;
        for place in Place::all() {
            if let Some(proxy) = self.proxies[place].as_mut() {
                proxy.outstanding = 0;
                proxy.waiting = Waiting::NONE;
                self.close(place);
            }
        }
        self.exports.fill(Export::NONE);
        self.refusal_count = 0;
    }
}
