//! Only the guard can make an `Approved<Command>`.

#[test]
fn invariant_01_approved_cannot_be_forged() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
