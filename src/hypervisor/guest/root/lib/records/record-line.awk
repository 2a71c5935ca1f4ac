# One record: 64 bytes with the line's end. Number, milliseconds since boot, and a checksum of both that fills the rest.
function record_line(number, ms,   a, b) {
  a = (number * 48271 + ms * 69621 + 12345) % 2147483647
  b = (a * 16807 + number) % 2147483647
  return sprintf("%010d %010d %010d %010d %018d\n", number, ms, a, b, a + b)
}
