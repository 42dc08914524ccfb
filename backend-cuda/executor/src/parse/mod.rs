//! PTX text to a tree: modules, functions, variables and statements. What an instruction means is
//! [`decode`](crate::decode)'s business.

pub(crate) mod ast;
mod lexer;

use ast::{Function, Init, Instruction, Operand, Statement, Tree, VarSpace, Variable};
use lexer::{Spanned, Token};

/// Why a module was refused, with the line that is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line of the PTX text, from 1; 0 if no line is to blame.
    pub line: u32,
    /// That line.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ParseError {
    pub(crate) fn at(source: &str, line: u32, reason: impl Into<String>) -> Self {
        Self { line, text: line_of(source, line).to_owned(), reason: reason.into() }
    }
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PTX line {}: {}: `{}`", self.line, self.reason, self.text)
    }
}

impl core::error::Error for ParseError {}

/// Line `line` of a source, from 1, without blanks around it.
pub(crate) fn line_of(source: &str, line: u32) -> &str {
    source.lines().nth((line as usize).wrapping_sub(1)).unwrap_or("").trim()
}

/// Bits of a fundamental type (PTX ISA 5.2.1), without its dot; a predicate has one.
pub(crate) fn type_bits(name: &str) -> Option<u8> {
    Some(match name {
        "pred" => 1,
        "b8" | "u8" | "s8" => 8,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 16,
        "b32" | "u32" | "s32" | "f32" => 32,
        "b64" | "u64" | "s64" | "f64" => 64,
        _ => return None,
    })
}

/// Parses a whole source.
pub(crate) fn parse(source: &str) -> Result<Tree<'_>, ParseError> {
    let mut parser = Parser { source, tokens: lexer::tokens(source)?, at: 0 };
    let mut tree = Tree::default();
    while parser.at < parser.tokens.len() {
        parser.item(&mut tree)?;
    }
    Ok(tree)
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Spanned<'a>>,
    at: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl<'a> Parser<'a> {
    fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |(_, line)| *line)
    }

    fn error<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        Err(ParseError::at(self.source, self.line(), reason))
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|(token, _)| *token)
    }

    fn next(&mut self) -> Parsed<Token<'a>> {
        let Some(token) = self.peek() else { return self.error("the file ends too early") };
        self.at += 1;
        Ok(token)
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Token::Word(word));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: char) -> Parsed<()> {
        if self.take(sign) { Ok(()) } else { self.error(format!("`{sign}` expected")) }
    }

    fn word(&mut self) -> Parsed<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.error("a name expected"),
        }
    }

    /// Integer constant with an optional sign.
    fn integer(&mut self) -> Parsed<i64> {
        let negative = self.take('-');
        match self.next()? {
            Token::Int(value) if negative => Ok((value as i64).wrapping_neg()),
            Token::Int(value) => Ok(value as i64),
            _ => {
                self.at -= 1;
                self.error("an integer expected")
            }
        }
    }

    fn small(&mut self) -> Parsed<u32> {
        let value = self.integer()?;
        u32::try_from(value).or_else(|_| self.error("a number out of range"))
    }

    /// Skips to the end of the statement.
    fn skip_statement(&mut self) -> Parsed<()> {
        while self.next()? != Token::Sign(';') {}
        Ok(())
    }

    /// Skips the rest of the line: directives without a semicolon.
    fn skip_line(&mut self) {
        let line = self.line();
        while self.at < self.tokens.len() && self.line() == line {
            self.at += 1;
        }
    }

    fn item(&mut self, tree: &mut Tree<'a>) -> Parsed<()> {
        let mut external = false;
        loop {
            let Some(Token::Word(word)) = self.peek() else { return self.error("a directive expected") };
            match word {
                ".version" | ".target" | ".address_size" | ".file" => {
                    self.skip_line();
                    return Ok(());
                }
                ".section" => {
                    while self.next()? != Token::Sign('}') {}
                    return Ok(());
                }
                ".pragma" => return self.skip_statement(),
                ".extern" => external = true,
                ".visible" | ".weak" | ".common" => {}
                ".entry" | ".func" => {
                    self.at += 1;
                    let function = self.function(word == ".entry")?;
                    tree.functions.push(function);
                    return Ok(());
                }
                ".global" | ".const" | ".shared" => {
                    let variable = self.variable(external)?;
                    self.expect(';')?;
                    tree.variables.push(variable);
                    return Ok(());
                }
                _ => return self.error(format!("the directive {word} is not supported")),
            }
            self.at += 1;
        }
    }

    fn parameters(&mut self) -> Parsed<Vec<Variable<'a>>> {
        let mut out = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            if !out.is_empty() {
                self.expect(',')?;
            }
            out.push(self.variable(false)?);
        }
        Ok(out)
    }

    fn function(&mut self, is_entry: bool) -> Parsed<Function<'a>> {
        let returns = if !is_entry && self.peek() == Some(Token::Sign('(')) { self.parameters()? } else { Vec::new() };
        let line = self.line();
        let name = self.word()?;
        let params = if self.peek() == Some(Token::Sign('(')) { self.parameters()? } else { Vec::new() };
        // Performance-tuning directives say nothing about the meaning (PTX ISA 11.4).
        loop {
            match self.peek() {
                Some(Token::Word(".noreturn" | ".reqnctapercluster" | ".maxclusterrank" | ".blocksareclusters")) => {
                    self.at += 1;
                }
                Some(Token::Word(".maxntid" | ".reqntid" | ".minnctapersm" | ".maxnctapersm" | ".maxnreg")) => {
                    self.at += 1;
                    while matches!(self.peek(), Some(Token::Int(_) | Token::Sign(','))) {
                        self.at += 1;
                    }
                }
                Some(Token::Word(".pragma")) => self.skip_statement()?,
                _ => break,
            }
        }
        let mut function = Function { name, is_entry, params, returns, body: None, line };
        if self.take(';') {
            return Ok(function);
        }
        self.expect('{')?;
        let (mut body, mut depth) = (Vec::new(), 0);
        loop {
            if self.take('{') {
                depth += 1;
                body.push(Statement::Open);
            } else if self.take('}') {
                if depth == 0 {
                    break;
                }
                depth -= 1;
                body.push(Statement::Close);
            } else if !self.take(';') {
                self.statement(&mut body)?;
            }
        }
        function.body = Some(body);
        Ok(function)
    }

    /// Space, alignment, type, name, size and initialiser of a variable or parameter.
    fn variable(&mut self, external: bool) -> Parsed<Variable<'a>> {
        let line = self.line();
        let space = match self.word()? {
            ".global" => VarSpace::Global,
            ".const" => VarSpace::Const,
            ".shared" | ".shared::cta" => VarSpace::Shared,
            ".local" => VarSpace::Local,
            ".param" => VarSpace::Param,
            other => return self.error(format!("{other} variables are not supported")),
        };
        let (mut align, mut bits) = (0, None);
        let name = loop {
            match self.word()? {
                ".align" => align = self.small()?,
                // Attributes of a kernel's pointer parameter: what it points to.
                ".ptr" | ".global" | ".shared" | ".local" | ".const" => {}
                ".attribute" => while self.next()? != Token::Sign(')') {},
                word if word.starts_with('.') => match type_bits(&word[1..]) {
                    Some(found) if found >= 8 => bits = Some(found),
                    _ => return self.error(format!("variables of type {word} are not supported")),
                },
                name => break name,
            }
        };
        let Some(bits) = bits else { return self.error("a type expected") };
        let element = u32::from(bits) / 8;
        let mut count = Some(1u32);
        while self.take('[') {
            if self.take(']') {
                count = None;
            } else {
                let n = self.small()?;
                count = count.map(|c| c.saturating_mul(n));
                self.expect(']')?;
            }
        }
        // `.ptr .align n` speaks of the target, so it must not shrink the parameter's own alignment.
        let align = if space == VarSpace::Param && count == Some(1) { element } else { align.max(element) };
        let mut init = Vec::new();
        if self.take('=') {
            if self.take('{') {
                while !self.take('}') {
                    init.push(self.initialiser(element)?);
                    self.take(',');
                }
            } else {
                init.push(self.initialiser(element)?);
            }
        }
        Ok(Variable { space, name, align: align.max(1), element, count, init, external, line })
    }

    fn initialiser(&mut self, element: u32) -> Parsed<Init<'a>> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.at += 1;
                let (name, wrapped) =
                    if word == "generic" && self.take('(') { (self.word()?, true) } else { (word, false) };
                if wrapped {
                    self.expect(')')?;
                }
                let offset = self.offset()?;
                if element < 8 {
                    self.error("an address needs eight bytes")
                } else {
                    Ok(Init::Symbol { name, offset, shift: 0 })
                }
            }
            // `0xFF00(name)`: one byte of an address.
            Some(Token::Int(mask)) if self.tokens.get(self.at + 1).map(|t| t.0) == Some(Token::Sign('(')) => {
                self.at += 2;
                let name = self.word()?;
                let (name, wrapped) =
                    if name == "generic" && self.take('(') { (self.word()?, true) } else { (name, false) };
                if wrapped {
                    self.expect(')')?;
                }
                let offset = self.offset()?;
                self.expect(')')?;
                Ok(Init::Symbol { name, offset, shift: mask.trailing_zeros() })
            }
            Some(Token::Single(bits)) => {
                self.at += 1;
                Ok(Init::Value(u64::from(bits)))
            }
            Some(Token::Double(bits)) => {
                self.at += 1;
                Ok(Init::Value(bits))
            }
            _ => Ok(Init::Value(self.integer()? as u64)),
        }
    }

    /// `+n`, `-n`, `+-n` or nothing.
    fn offset(&mut self) -> Parsed<i64> {
        if self.take('+') || self.peek() == Some(Token::Sign('-')) { self.integer() } else { Ok(0) }
    }

    fn statement(&mut self, body: &mut Vec<Statement<'a>>) -> Parsed<()> {
        let guard = if self.take('@') {
            let negated = self.take('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let line = self.line();
        let word = self.word()?;
        if guard.is_none() {
            if self.take(':') {
                return self.label(word, body);
            }
            match word {
                ".reg" => return self.registers(body),
                ".local" | ".shared" | ".shared::cta" | ".param" => {
                    self.at -= 1;
                    let variable = self.variable(false)?;
                    self.expect(';')?;
                    body.push(Statement::Variable(variable));
                    return Ok(());
                }
                ".pragma" => return self.skip_statement(),
                ".loc" | ".file" => {
                    self.at -= 1;
                    self.skip_line();
                    return Ok(());
                }
                _ if word.starts_with('.') => {
                    self.at -= 1;
                    return self.error(format!("the directive {word} is not supported"));
                }
                _ => {}
            }
        }
        let mut operands = Vec::new();
        while !self.take(';') {
            if !operands.is_empty() {
                self.expect(',')?;
            }
            operands.push(self.operand()?);
        }
        body.push(Statement::Instruction(Instruction { line, guard, mnemonic: word, operands }));
        Ok(())
    }

    /// A label, or a table or prototype that is named like one.
    fn label(&mut self, name: &'a str, body: &mut Vec<Statement<'a>>) -> Parsed<()> {
        if self.take_word(".branchtargets") {
            let mut labels = Vec::new();
            while !self.take(';') {
                self.take(',');
                labels.push(self.word()?);
            }
            body.push(Statement::Targets { name, labels });
            return Ok(());
        }
        if self.take_word(".callprototype") || self.take_word(".calltargets") {
            return self.skip_statement();
        }
        body.push(Statement::Label(name));
        Ok(())
    }

    fn registers(&mut self, body: &mut Vec<Statement<'a>>) -> Parsed<()> {
        let ty = self.word()?;
        let Some(bits) = type_bits(ty.trim_start_matches('.')) else {
            return self.error(format!("registers of type {ty} are not supported"));
        };
        loop {
            let name = self.word()?;
            let count = if self.take('<') {
                let count = self.small()?;
                self.expect('>')?;
                Some(count)
            } else {
                None
            };
            body.push(Statement::Registers { bits, name, count });
            if !self.take(',') {
                return self.expect(';');
            }
        }
    }

    fn operand(&mut self) -> Parsed<Operand<'a>> {
        Ok(match self.next()? {
            Token::Word(name) if self.take('|') => Operand::Pair(name, self.word()?),
            Token::Word(name) => Operand::Name(name, self.offset()?),
            Token::Int(value) => Operand::Int(value),
            Token::Single(bits) => Operand::Single(bits),
            Token::Double(bits) => Operand::Double(bits),
            Token::Sign('-') => {
                self.at -= 1;
                Operand::Int(self.integer()? as u64)
            }
            Token::Sign('!') => Operand::Not(self.word()?),
            Token::Sign('[') => {
                let inner = self.operand()?;
                self.expect(']')?;
                Operand::Address(Box::new(inner))
            }
            Token::Sign('{') => Operand::Vector(self.operands('}')?),
            Token::Sign('(') => Operand::List(self.operands(')')?),
            _ => {
                self.at -= 1;
                return self.error("an operand expected");
            }
        })
    }

    fn operands(&mut self, end: char) -> Parsed<Vec<Operand<'a>>> {
        let mut out = Vec::new();
        while !self.take(end) {
            if !out.is_empty() {
                self.expect(',')?;
            }
            out.push(self.operand()?);
        }
        Ok(out)
    }
}
