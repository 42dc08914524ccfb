//! Each rule against PTX that breaks it: in `tests/bad`, a comment `// ! RULE...` ends each line where something must
//! be found, and nothing may be found elsewhere.

use k2k_ptx::audit::{Contract, audit, edited};
use k2k_ptx::ptx::{Module, named};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "ptx")).collect()
}

fn expected(text: &str) -> Vec<(usize, String)> {
    let marked = text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.split_once("// ! ")?.1)));
    marked.flat_map(|(line, rules)| rules.split(' ').map(move |rule| (line, rule.to_owned()))).collect()
}

#[test]
fn each_rule_finds_what_breaks_it_and_nothing_else() {
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let module = Module::parse(&text).unwrap();
        let contract = fs::read_to_string(path.with_extension("audit")).ok();
        let contract = contract.map(|text| Contract::parse(&text).unwrap());
        let mut findings = audit(&module, contract.as_ref());
        findings.extend(edited(&text));
        let found: Vec<_> = findings.iter().map(|it| (it.line, it.rule.name().to_owned())).collect();
        assert_eq!(found, expected(&text), "{}: {findings:#?}", path.display());
    }
}

#[test]
fn what_a_hot_function_may_not_do_is_found_in_each_of_the_modules_in_use() {
    for name in ["ptx/k2k", "cli/ptx/check"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let mut module = Module::parse(&fs::read_to_string(path.with_extension("ptx")).unwrap()).unwrap();
        let contract = Contract::parse(&fs::read_to_string(path.with_extension("audit")).unwrap()).unwrap();
        let hot: BTreeSet<_> = contract.entries.values().flat_map(|clause| clause.hot_functions.keys()).collect();
        assert!(!hot.is_empty() && audit(&module, Some(&contract)).is_empty());
        for name in hot {
            // Of every shape: an entry point of another one need not call it hot.
            let symbols: Vec<String> = named(module.functions.iter().map(|it| it.name.as_str()), name)
                .into_iter()
                .map(str::to_owned)
                .collect();
            let whole = module.functions.clone();
            for (opcode, operands, rule) in [
                ("ld.local.b64", "%rd1, [%SPL]", "hot-local"),
                ("st.local.b64", "[%SPL], %rd1", "hot-local"),
                ("call.uni", "memcmp, (param0)", "hot-call"),
                ("trap", "", "hot-panic"),
            ] {
                for function in module.functions.iter_mut().filter(|it| symbols.contains(&it.name)) {
                    let instruction = &mut function.instructions[0];
                    (instruction.opcode, instruction.operands) = (opcode.to_owned(), operands.to_owned());
                }
                let found = audit(&module, Some(&contract));
                assert!(found.iter().any(|finding| finding.rule.name() == rule), "{name}: {opcode}: {found:?}");
            }
            module.functions = whole;
        }
    }
}

#[test]
fn no_rule_is_without_a_test() {
    let tested: BTreeSet<String> =
        files().iter().flat_map(|path| expected(&fs::read_to_string(path).unwrap())).map(|(_, rule)| rule).collect();
    // The names as the source has them, so that a new one is not forgotten here. Machine code has tests of its own.
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/audit/mod.rs")).unwrap();
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""));
    let names: BTreeSet<String> = names
        .filter_map(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()))
        .filter(|name| !name.starts_with("sass-"))
        .collect();
    assert!(names.len() > 10);
    assert_eq!(names, tested);
}
