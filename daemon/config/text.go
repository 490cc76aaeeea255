package config

import "bytes"

// byteOrderMark is U+FEFF in UTF-8, which some editors put at the beginning of a file.
const byteOrderMark = "\xef\xbb\xbf"

// asText returns a text file as it was meant, whatever system it was written on: without a byte order mark, and with lines
// that end in \n. A script in a heredoc would not run with \r at the end of its lines.
func asText(data []byte) ([]byte, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, &distrust{"refused: it is UTF-16", "Save it as UTF-8."}
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	return bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), nil
}
