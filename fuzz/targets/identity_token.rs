#![no_main]
#![allow(unsafe_code, reason = "libFuzzer finds the target by its name")]

libfuzzer_sys::fuzz_target!(|input: &[u8]| codedeploy_fuzz::identity_token(input));
