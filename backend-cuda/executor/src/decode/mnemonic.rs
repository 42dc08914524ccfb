//! A mnemonic and its modifiers. Each decoder takes those it knows; what is left over is an error.

use super::scope::Reason;
use crate::op::{Kind, Scope, Type};

pub(super) struct Mnemonic<'a> {
    /// The part before the first dot.
    pub(super) name: &'a str,
    modifiers: Vec<&'a str>,
}

fn fundamental(name: &str) -> Option<Type> {
    let kind = match name.as_bytes().first()? {
        b'u' => Kind::Unsigned,
        b's' => Kind::Signed,
        b'b' | b'p' => Kind::Bits,
        b'f' => Kind::Float,
        _ => return None,
    };
    let bits = crate::parse::type_bits(name)?;
    // Half precision can be moved as bits only.
    (!matches!(name, "f16" | "bf16")).then_some(Type { kind, bits })
}

impl<'a> Mnemonic<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut parts = text.split('.');
        Self { name: parts.next().unwrap_or(""), modifiers: parts.collect() }
    }

    /// Takes a modifier if it is there.
    pub(super) fn take(&mut self, name: &str) -> bool {
        let found = self.modifiers.iter().position(|m| *m == name);
        if let Some(at) = found {
            self.modifiers.remove(at);
        }
        found.is_some()
    }

    /// Takes the first of these modifiers that is there.
    pub(super) fn take_any<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        table.iter().find(|(name, _)| self.take(name)).map(|(_, value)| *value)
    }

    /// Takes modifiers by their beginning.
    pub(super) fn take_prefixed(&mut self, prefix: &str) {
        self.modifiers.retain(|m| !m.starts_with(prefix));
    }

    /// Takes the last type.
    pub(super) fn ty(&mut self) -> Result<Type, Reason> {
        let at = self.modifiers.iter().rposition(|m| fundamental(m).is_some());
        let found = at.map(|at| self.modifiers.remove(at)).and_then(fundamental);
        found.ok_or_else(|| format!("{} without a type that is supported", self.name))
    }

    pub(super) fn scope(&mut self) -> Option<Scope> {
        self.take_any(&[("cta", Scope::Cta), ("gpu", Scope::Gpu), ("sys", Scope::Sys)])
    }

    /// Whether everything was understood.
    pub(super) fn finish(self) -> Result<(), Reason> {
        match self.modifiers.first() {
            None => Ok(()),
            Some(left) => Err(format!("the modifier .{left} of {} is not supported", self.name)),
        }
    }
}
