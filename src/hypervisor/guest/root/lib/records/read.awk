/^ *$/ { exit }
{
  if ($0 "\n" != record_line($1 + 0, $2 + 0) || $1 + 0 <= last) { torn++; next }
  missing += $1 - last - 1
  last = $1 + 0
  count++
}
END { printf "records=%d torn=%d missing=%d last=%d\n", count, torn, missing, last }
