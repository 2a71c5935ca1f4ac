# Filled with blanks, not zeroes: busybox awk reads 010 as eight.
# One record: 64 bytes with the line's end. Number, milliseconds since boot, and a checksum of both that fills the rest.
function record_line(number, ms,   a, b) {
  a = (number * 48271 + ms * 69621 + 12345) % 2147483647
  b = (a * 16807 + number) % 2147483647
  return sprintf("%10d %10d %10d %10d %19d\n", number, ms, a, b, a + b)
}
