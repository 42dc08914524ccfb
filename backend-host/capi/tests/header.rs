//! The committed header is what the sources say.

use std::path::Path;

const HEADER: &str = "include/k2k.h";

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/lib.rs"));
    let mut header = Vec::new();
    builder.generate().expect("the sources are what cbindgen understands").write(&mut header);
    let header = String::from_utf8(header).expect("UTF-8");
    // The contract of all calls stands at the top of the header, not at each.
    let mut kept: Vec<&str> = Vec::new();
    let mut in_contract = false;
    for line in header.lines() {
        in_contract = (in_contract || line == "// # Safety") && line.starts_with("//");
        if !in_contract {
            if !line.starts_with("//") && kept.last() == Some(&"//") {
                kept.pop();
            }
            kept.push(line);
        }
    }
    kept.join("\n") + "\n"
}

/// To write the header anew: `K2K_WRITE_HEADER=1 cargo test -p k2k-capi --test header`.
#[test]
fn the_committed_header_is_the_one_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(HEADER);
    let expected = generate();
    if std::env::var_os("K2K_WRITE_HEADER").is_some() {
        std::fs::write(&path, &expected).expect("the header can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            found,
            expected,
            "line {} of {HEADER} is not that of the sources: K2K_WRITE_HEADER=1 cargo test -p k2k-capi --test header",
            number + 1
        );
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{HEADER} ends elsewhere than the sources say");
}
