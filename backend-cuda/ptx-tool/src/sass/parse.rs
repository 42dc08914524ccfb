//! Reads what the assembler and the disassembler print.

use super::EntryCode;
use std::collections::BTreeMap;

/// The entry points, by name: `log` is what `ptxas -v` prints, `text` what `nvdisasm -c` does.
pub(super) fn entries(log: &str, text: &str) -> Vec<EntryCode> {
    let mut entries: BTreeMap<String, EntryCode> = BTreeMap::new();
    let mut current = None;
    for line in log.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            current = Some(entries.entry(name.to_owned()).or_insert_with(|| EntryCode::new(name)));
        }
        let Some(entry) = current.as_deref_mut() else { continue };
        // Of the entry point, then of each function that it calls and that was not inlined.
        for (number, what) in numbers(line) {
            match what {
                "registers" => entry.registers = entry.registers.max(number),
                "bytes stack frame" | "bytes cumulative stack size" => {
                    entry.stack_bytes = entry.stack_bytes.max(number);
                }
                "bytes spill stores" => entry.spill_store_bytes += number,
                "bytes spill loads" => entry.spill_load_bytes += number,
                _ => {}
            }
        }
    }
    let mut current = None;
    let mut function = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(".section") {
            // Functions that were not inlined lie in the section of each entry point that calls them.
            let name = words.next().and_then(|word| word.strip_prefix(".text.")?.split(',').next());
            current = name.and_then(|name| entries.get_mut(name));
            function = current.as_deref().map(|entry| entry.name.clone());
        }
        // `$ENTRY$FUNCTION:`, for each of them.
        if let (Some(entry), Some(label)) = (current.as_deref(), line.strip_suffix(':')) {
            let name =
                label.strip_prefix('$').and_then(|rest| rest.strip_prefix(entry.name.as_str())?.strip_prefix('$'));
            function = name.map(str::to_owned).or(function);
        }
        if let (Some(entry), Some(opcode)) = (current.as_deref_mut(), opcode(line)) {
            *entry.opcodes.entry(opcode.to_owned()).or_insert(0) += 1;
            if let Some(function) = &function {
                let locals = entry.function_locals.entry(function.clone()).or_insert(0);
                *locals += usize::from(matches!(super::base(opcode), "LDL" | "STL"));
            }
        }
    }
    entries.into_values().collect()
}

/// `/*0090*/  @!P0 LD.E.64.STRONG.SYS R2, [R4] ;`
fn opcode(line: &str) -> Option<&str> {
    let (address, rest) = line.trim_start().strip_prefix("/*")?.split_once("*/")?;
    if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut words = rest.split_whitespace().map(|word| word.trim_matches(|c| "{};".contains(c)));
    let opcode = words.find(|word| !word.is_empty() && !word.starts_with('@'))?;
    opcode.starts_with(|c: char| c.is_ascii_uppercase()).then_some(opcode)
}

/// The numbers of a line with the words after them: `0 bytes stack frame, 8 bytes spill stores`, `Used 24 registers`.
fn numbers(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let rest = line.split_once(" : ").map_or(line, |(_, rest)| rest);
    rest.split(',').filter_map(|part| {
        let part = part.trim().trim_start_matches("Used ").trim_start_matches("used ");
        let (number, what) = part.split_once(' ')?;
        Some((number.parse().ok()?, what.trim()))
    })
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.split_once(before)?.1.split_once(after).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_are_understood() {
        let log = "ptxas info    : 320 bytes gmem\n\
            ptxas info    : Compiling entry function 'send' for 'sm_90'\n\
            ptxas info    : Function properties for send\n    112 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 0 barriers, 144 bytes cumulative stack size\n\
            ptxas info    : Compile time = 22.110 ms\n\
            ptxas info    : Function properties for helper\n    32 bytes stack frame, 2 bytes spill stores, 0 bytes spill loads\n";
        let text = "\t.section\t.text.send,\"ax\",@progbits\n\t.sectioninfo @\"SHI_REGISTERS=40\"\nsend:\n\
            /*0000*/    LDC R1, c[0x0][0x28] ;\n\
            /*0010*/    @!P0 ST.E.64.STRONG.SYS desc[UR4][R2.64], R4 ;\n\
            /*0020*/    { MEMBAR.ALL.SYS ;\n\
            .L_x_1:\n\
            $send$_RNvC1k6helper:\n\
            /*0030*/    STL.64 [R1], R4 ;\n\
            \t.section\t.nv.info,\"\",@\"SHT_CUDA_INFO\"\n        /*0000*/ 	.byte 0x04\n";
        let entry = &entries(log, text)[0];
        assert_eq!((entry.name.as_str(), entry.registers, entry.stack_bytes), ("send", 40, 144));
        assert_eq!((entry.spill_store_bytes, entry.spill_load_bytes), (10, 4));
        let opcodes: Vec<_> = entry.opcodes.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        assert_eq!(opcodes, [("LDC", 1), ("MEMBAR.ALL.SYS", 1), ("ST.E.64.STRONG.SYS", 1), ("STL.64", 1)]);
        let locals: Vec<_> = entry.function_locals.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        assert_eq!(locals, [("_RNvC1k6helper", 1), ("send", 0)]);
    }
}
