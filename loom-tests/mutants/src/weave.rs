//! Rewrites a source file so that each of its mutants can be switched on at run time.
//!
//! A mutant is a place and what to put there. Where `a < b` may become `a == b` (mutant 7) or `a > b` (mutant 8), the
//! woven source says
//!
//! ```text
//! (match (&(a), &(b)) { (__l, __r) => if crate::mutant_is(7) { *__l == *__r } else if crate::mutant_is(8) { *__l > *__r } else { *__l < *__r } })
//! ```
//!
//! which evaluates `a` and `b` once, and keeps temporaries alive as long as the original does. Line breaks stay where they
//! were.

use crate::Mutant;
use proc_macro2::Span;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprConst, ExprMatch, ExprRepeat, ExprUnary, GenericArgument,
    ImplItemConst, ImplItemFn, ItemConst, ItemFn, ItemStatic, MetaList, Pat, TraitItemConst, TraitItemFn, Type,
};

/// Line and column, both from 1.
pub type Position = (usize, usize);

/// The mutants of one place, and where that is in the woven source.
pub struct Woven {
    pub mutants: Vec<usize>,
    pub bytes: Range<usize>,
}

/// Where texts go that are inserted at one byte: what closes a place comes before what opens the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Close,
    Open,
    Replace,
}

struct Edit {
    bytes: Range<usize>,
    kind: Kind,
    text: String,
    /// How wide the place is: of two that end at one byte the narrow one is closed first, of two that begin there the
    /// wide one is opened first.
    width: usize,
    group: usize,
}

/// Genre, begin and end.
type Place = (String, Position, Position);

struct Weaver<'a> {
    source: &'a str,
    lines: Vec<usize>,
    by_place: HashMap<Place, Vec<(usize, &'a Mutant)>>,
    edits: Vec<Edit>,
    groups: Vec<(Vec<usize>, Range<usize>)>,
    /// Text that occurs twice in the woven source: nothing inside of it can be woven.
    copied: Vec<Range<usize>>,
}

/// The woven source, and what was woven into it.
pub fn weave(source: &str, mutants: &[(usize, &Mutant)]) -> (String, Vec<Woven>) {
    let mut lines = vec![0];
    lines.extend(source.match_indices('\n').map(|(at, _)| at + 1));
    let mut by_place: HashMap<_, Vec<_>> = HashMap::new();
    for &(number, mutant) in mutants {
        let place = (mutant.genre.clone(), mutant.span.start.position(), mutant.span.end.position());
        by_place.entry(place).or_default().push((number, mutant));
    }
    let file = syn::parse_file(source).expect("core compiles");
    let mut weaver = Weaver { source, lines, by_place, edits: vec![], groups: vec![], copied: vec![] };
    weaver.visit_file(&file);
    weaver.finish()
}

fn start(span: Span) -> Position {
    (span.start().line, span.start().column + 1)
}

fn end(span: Span) -> Position {
    (span.end().line, span.end().column + 1)
}

/// Whether a function is for the loom checker, which no test of core is built for.
fn is_for_loom(attributes: &[Attribute]) -> bool {
    let only = |list: &MetaList| list.path.is_ident("cfg") && list.tokens.to_string() == "k2k_loom";
    attributes.iter().any(|attribute| attribute.meta.require_list().is_ok_and(only))
}

/// Whether an operand of `&&` or `||` is `let`, which can stand nowhere else.
fn has_let(e: &Expr) -> bool {
    match e {
        Expr::Let(_) => true,
        Expr::Binary(both) if matches!(both.op, BinOp::And(_)) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

/// `if` one is the mutant, what `of` makes of its replacement, and `otherwise` the original.
fn choose(mutants: &[(usize, &Mutant)], of: impl Fn(&str) -> String, otherwise: &str) -> String {
    let arm = |(number, mutant): &(usize, &Mutant)| {
        format!("if crate::mutant_is({number}) {{ {} }} else ", of(&mutant.replacement))
    };
    mutants.iter().map(arm).collect::<String>() + &format!("{{ {otherwise} }}")
}

impl<'a> Weaver<'a> {
    fn byte(&self, (line, column): Position) -> usize {
        let begin = self.lines[line - 1];
        let text = &self.source[begin..];
        begin + text.char_indices().nth(column - 1).map_or(text.len(), |(at, _)| at)
    }

    fn bytes(&self, span: Span) -> Range<usize> {
        self.byte(start(span))..self.byte(end(span))
    }

    fn at(&self, genre: &str, begin: Position, end: Position) -> Option<Vec<(usize, &'a Mutant)>> {
        self.by_place.get(&(genre.to_owned(), begin, end)).cloned()
    }

    fn at_span(&self, genre: &str, span: Span) -> Option<Vec<(usize, &'a Mutant)>> {
        self.at(genre, start(span), end(span))
    }

    fn group(&mut self, mutants: &[(usize, &Mutant)], place: &Range<usize>) -> usize {
        self.groups.push((mutants.iter().map(|(number, _)| *number).collect(), place.clone()));
        self.groups.len() - 1
    }

    fn edit(&mut self, kind: Kind, bytes: Range<usize>, width: usize, group: usize, text: String) {
        self.edits.push(Edit { bytes, kind, text, width, group });
    }

    /// Puts `before` and `after` around a place, and `between` instead of an operator inside of it.
    fn wrap(
        &mut self,
        mutants: &[(usize, &Mutant)],
        place: &Range<usize>,
        before: &str,
        operator: Option<(Range<usize>, String)>,
        after: String,
    ) {
        let group = self.group(mutants, place);
        self.edit(Kind::Open, place.start..place.start, place.len(), group, before.to_owned());
        if let Some((bytes, between)) = operator {
            self.edit(Kind::Replace, bytes, 0, group, between);
        }
        self.edit(Kind::Close, place.end..place.end, place.len(), group, after);
    }

    /// A function that returns something else at once.
    fn body(&mut self, block: &Block) {
        // cargo-mutants names the statements, without their braces.
        let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) else { return };
        let (begin, end) = (start(first.span()), end(last.span()));
        let place = self.byte(begin)..self.byte(end);
        let open = self.bytes(block.brace_token.span.open()).end;
        for (number, mutant) in self.at("FnValue", begin, end).unwrap_or_default() {
            let group = self.group(&[(number, mutant)], &place);
            let text = format!(" if crate::mutant_is({number}) {{ return {}; }} ", mutant.replacement);
            self.edit(Kind::Close, open..open, usize::MAX, group, text);
        }
    }

    fn finish(self) -> (String, Vec<Woven>) {
        let copied = |group: usize| {
            let place = &self.groups[group].1;
            self.copied.iter().any(|text| text.start <= place.start && place.end <= text.end)
        };
        let mut edits: Vec<_> = self.edits.iter().filter(|edit| !copied(edit.group)).collect();
        edits.sort_by(|one, other| {
            (one.bytes.start, one.kind).cmp(&(other.bytes.start, other.kind)).then_with(|| match one.kind {
                Kind::Close => one.width.cmp(&other.width),
                _ => other.width.cmp(&one.width),
            })
        });
        let (mut text, mut at) = (String::new(), 0);
        let mut woven: HashMap<usize, Range<usize>> = HashMap::new();
        for edit in edits {
            text += &self.source[at..edit.bytes.start];
            let begin = text.len();
            text += &edit.text;
            woven.entry(edit.group).or_insert(begin..0).end = text.len();
            at = edit.bytes.end;
        }
        text += &self.source[at..];
        let of = |(group, bytes): (usize, Range<usize>)| Woven { mutants: self.groups[group].0.clone(), bytes };
        (text, woven.into_iter().map(of).collect())
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    // What is worked out while compiling cannot be switched at run time.
    fn visit_item_const(&mut self, _: &'ast ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast TraitItemConst) {}
    fn visit_item_static(&mut self, _: &'ast ItemStatic) {}
    fn visit_expr_const(&mut self, _: &'ast ExprConst) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_generic_argument(&mut self, _: &'ast GenericArgument) {}
    fn visit_expr_repeat(&mut self, e: &'ast ExprRepeat) {
        self.visit_expr(&e.expr);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.body(&function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if is_for_loom(&function.attrs) {
            return;
        }
        self.body(&function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.body(block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_expr_binary(&mut self, e: &'ast ExprBinary) {
        if let Some(mutants) = self.at_span("BinaryOperator", e.op.span()) {
            let place = self.bytes(e.span());
            let operator = self.bytes(e.op.span());
            let original = self.source[operator.clone()].to_owned();
            match original.as_str() {
                "&&" | "||" => {
                    // Others cannot be: `a == b` of what may be no `bool`, and `!=` is `^`.
                    let swapped: Vec<_> =
                        mutants.into_iter().filter(|(_, m)| ["&&", "||"].contains(&m.replacement.as_str())).collect();
                    if let [(number, _), ..] = swapped[..]
                        && !has_let(&e.left)
                        && !has_let(&e.right)
                    {
                        let not = if original == "&&" { "" } else { "!" };
                        let between = format!(") {{ __l => if __l ^ {not}crate::mutant_is({number}) {{ ");
                        self.wrap(&swapped, &place, "(match (", Some((operator, between)), " } else { __l } })".into());
                    }
                }
                "==" | "!=" | "<" | ">" | "<=" | ">=" => {
                    let each = choose(&mutants, |op| format!("*__l {op} *__r"), &format!("*__l {original} *__r"));
                    let between = Some((operator, "), &(".into()));
                    self.wrap(&mutants, &place, "(match (&(", between, format!(")) {{ (__l, __r) => {each} }})"));
                }
                _ if original.ends_with('=') => {
                    // The place on the left is written to in each branch.
                    let left = self.source[place.start..operator.start].to_owned();
                    self.copied.push(place.start..operator.start);
                    let each = choose(&mutants, |op| format!("{left} {op} __r"), &format!("{left} {original} __r"));
                    let group = self.group(&mutants, &place);
                    self.edit(Kind::Replace, place.start..operator.end, 0, group, "(match (".into());
                    let after = format!(") {{ __r => {each} }})");
                    self.edit(Kind::Close, place.end..place.end, place.len(), group, after);
                }
                _ => {
                    let each = choose(&mutants, |op| format!("__l {op} __r"), &format!("__l {original} __r"));
                    let between = Some((operator, ", ".into()));
                    self.wrap(&mutants, &place, "(match (", between, format!(") {{ (__l, __r) => {each} }})"));
                }
            }
        }
        visit::visit_expr_binary(self, e);
    }

    fn visit_expr_unary(&mut self, e: &'ast ExprUnary) {
        if let Some(mutants) = self.at_span("UnaryOperator", e.op.span()) {
            let place = self.bytes(e.span());
            let operator = self.bytes(e.op.span());
            let each = choose(&mutants, |_| "__v".into(), &format!("{}__v", &self.source[operator.clone()]));
            let group = self.group(&mutants, &place);
            self.edit(Kind::Replace, operator, 0, group, "(match (".into());
            let after = format!(") {{ __v => {each} }})");
            self.edit(Kind::Close, place.end..place.end, place.len(), group, after);
        }
        visit::visit_expr_unary(self, e);
    }

    fn visit_expr_match(&mut self, e: &'ast ExprMatch) {
        // An arm that is switched off has to leave the match exhaustive.
        let catches_all = |arm: &Arm| arm.guard.is_none() && matches!(arm.pat, Pat::Wild(_) | Pat::Ident(_));
        for arm in &e.arms {
            let guard = arm.guard.as_ref().map(|(_, guard)| &**guard).filter(|guard| !has_let(guard));
            if e.arms.iter().any(catches_all)
                && let Some(mutants) = self.at_span("MatchArm", arm.span())
            {
                let off = format!("!crate::mutant_is({})", mutants[0].0);
                let place = self.bytes(arm.span());
                let group = self.group(&mutants, &place);
                if let Some(guard) = guard {
                    let guard = self.bytes(guard.span());
                    self.edit(Kind::Open, guard.start..guard.start, usize::MAX, group, format!("{off} && ("));
                    self.edit(Kind::Close, guard.end..guard.end, usize::MAX, group, ")".into());
                } else if arm.guard.is_none() {
                    let at = self.bytes(arm.pat.span()).end;
                    self.edit(Kind::Close, at..at, usize::MAX, group, format!(" if {off}"));
                }
            }
            if let Some(guard) = guard
                && let Some(mutants) = self.at_span("MatchArmGuard", guard.span())
            {
                let place = self.bytes(guard.span());
                let group = self.group(&mutants, &place);
                let before = "(".to_owned() + choose(&mutants, str::to_owned, "").trim_end_matches(" }");
                self.edit(Kind::Open, place.start..place.start, usize::MAX - 1, group, before + " ");
                self.edit(Kind::Close, place.end..place.end, usize::MAX - 1, group, " })".into());
            }
        }
        visit::visit_expr_match(self, e);
    }
}

/// The mutants that are in a woven source.
pub fn numbers<'a>(woven: impl Iterator<Item = &'a Woven>) -> BTreeSet<usize> {
    woven.flat_map(|woven| woven.mutants.iter().copied()).collect()
}
