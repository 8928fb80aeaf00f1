//! What this machine adds to the guest kernel's command line, so that nobody else has to know this machine.

/// Added in front, so that what the specification says comes last and wins.
///
/// * one PCI bus: the kernel looks for no other;
/// * no clock is checked against another: there is only the host's;
/// * a kernel that panics ends the machine, which then says so.
const MACHINE: &str = "console=hvc0 pci=lastbus=0 tsc=reliable no_timer_check panic=-1 reboot=acpi";

/// The word by which early output is asked for.
const EARLY: &str = "earlyprintk=serial";

/// Returns the whole command line.
pub(crate) fn command_line(specified: &str) -> String {
    if specified.is_empty() {
        MACHINE.to_owned()
    } else {
        format!("{MACHINE} {specified}")
    }
}

/// Returns whether the kernel is told to print before its consoles exist.
pub(crate) fn wants_early_output(specified: &str) -> bool {
    specified
        .split_ascii_whitespace()
        .any(|word| word.starts_with(EARLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_the_last_word() {
        assert!(command_line("panic=0 ro").ends_with(" panic=0 ro"));
        assert_eq!(command_line(""), MACHINE);
    }

    #[test]
    fn early_output_is_a_word_of_its_own() {
        assert!(wants_early_output("quiet earlyprintk=serial,ttyS0"));
        assert!(!wants_early_output("x=earlyprintk=serial"));
    }
}
