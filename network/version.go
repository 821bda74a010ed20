package network

// Versions of QUIC, to compare with what StreamConn.GetVersion returns. The
// values are Hertz's, and two of them need a word:
//
//   - VersionTLS is an old name of Version1.
//   - Version2 is what the drafts of QUIC version 2 used. RFC 9369 gave that
//     version the value 0x6b3343cf, for which Hertz has no name.
const (
	VersionTLS     uint32 = 0x1
	VersionDraft29 uint32 = 0xff00001d
	Version1       uint32 = 0x1 // RFC 9000
	Version2       uint32 = 0x709a50c4
)
