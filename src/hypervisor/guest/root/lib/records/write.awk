function uptime_ms(   line, parts) {
  getline line < "/proc/uptime"
  close("/proc/uptime")
  split(line, parts, " ")
  return int(parts[1] * 1000 + 0.5)
}
BEGIN {
  for (;;) {
    number++
    printf "%s", record_line(number, uptime_ms())
    fflush()
    print "ack " number > acks
    fflush(acks)
    if (pause > 0) system("usleep " pause * 1000)
  }
}
