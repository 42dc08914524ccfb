//! The table of entry points on the crate's page.

/// Words that begin with `k2k_` in a text.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '*');
    words.filter(|word| word.starts_with("k2k_")).collect()
}

#[test]
fn table_of_entry_points_is_complete() {
    // The second cell of each row: names in backticks, `*` for a rest.
    let page = include_str!("../src/lib.rs");
    let cells = page.lines().filter_map(|line| line.strip_prefix("//! |")?.split('|').nth(1));
    let documented: Vec<&str> = cells.flat_map(names).collect();
    let covers = |documented: &str, name: &str| match documented.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == documented,
    };
    // `fn NAME(` in a block of `export!` or by itself; `NAME: way` in a list of those that differ in an end only.
    let sources = [
        include_str!("../src/entry/flag.rs"),
        include_str!("../src/entry/kernels.rs"),
        include_str!("../src/entry/layout.rs"),
        include_str!("../src/entry/ring.rs"),
        include_str!("../src/entry/role.rs"),
    ];
    let code = sources.iter().flat_map(|source| source.lines()).map(str::trim).filter(|line| !line.starts_with("//"));
    let entries: Vec<&str> = code
        .filter_map(|line| {
            let name = names(line).into_iter().next()?;
            let rest = &line[line.find(name)? + name.len()..];
            let listed = line.starts_with(name) && rest.starts_with(": ");
            let written = line.contains(&format!("fn {name}(")) && line.contains("pub(crate)");
            (listed || written).then_some(name)
        })
        .collect();
    assert!(entries.len() > 25, "{entries:?}");
    for name in &entries {
        assert!(documented.iter().any(|it| covers(it, name)), "{name} is not in the table");
    }
    for it in documented {
        assert!(entries.iter().any(|name| covers(it, name)), "the table has {it}, and the source does not");
    }
}
