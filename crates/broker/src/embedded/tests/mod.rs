//! Tests of the embedded queue: the contract suite, and what is its own.

mod bench;
