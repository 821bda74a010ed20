package networktest

import "testing"

// Z4: the reference agrees with the models in every respect.
func FuzzReferenceReader(f *testing.F) { FuzzReader(f, referenceConn(nil).Wrap) }
func FuzzReferenceWriter(f *testing.F) { FuzzWriter(f, referenceConn(nil).Wrap) }
