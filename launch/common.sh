# shellcheck shell=bash
# Shared by the launchers: options before the verb, one-line errors, quoting, dry runs. Sourced, not run.
#
# A launcher declares its options, then parses its arguments:
#   option NAME KIND DEFAULT HELP      KIND: text, count (0, 1, ...), size (1, 2, ...), seconds, flag
#   parse "$@"                         sets opt_NAME for each, `verb`, and `words`, the arguments after the verb
# It requires only bash 3.2 and awk, so that a dry run works on any machine.
# shellcheck disable=SC2034  # used by the launchers
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
launcher=./launch/$(basename "$0")
verbs="train sample evaluate stream metric_sanity vary compare edit convert prepare benchmark sweep suite results"
option_names=() option_kinds=() option_defaults=() option_helps=()
verb="" words=()

fail() { # fail MESSAGE: a user error (exit code 2), which no supervisor retries
  echo "error: $*" >&2
  exit 2
}

nearest() { # nearest NAME CHOICE...: "did you mean 'nodes'? (one of: ...)", by edit distance
  awk '
    function distance(a, b,   i, j, cost, best, row) {
      for (j = 0; j <= length(b); j++) row[0, j] = j
      for (i = 1; i <= length(a); i++) {
        row[i, 0] = i
        for (j = 1; j <= length(b); j++) {
          cost = substr(a, i, 1) != substr(b, j, 1)
          best = row[i - 1, j - 1] + cost
          if (row[i - 1, j] + 1 < best) best = row[i - 1, j] + 1
          if (row[i, j - 1] + 1 < best) best = row[i, j - 1] + 1
          row[i, j] = best
        }
      }
      return row[length(a), length(b)]
    }
    BEGIN {
      least = length(ARGV[1]) / 2 + 1
      for (k = 2; k < ARGC; k++) {
        all = all (k > 2 ? ", " : "") ARGV[k]
        found = distance(ARGV[1], ARGV[k])
        if (found < least) { least = found; close_one = ARGV[k] }
      }
      if (close_one != "") printf "did you mean \047%s\047? ", close_one
      printf "(one of: %s)", all
    }' "$@"
}

option() { # option NAME KIND DEFAULT HELP
  option_names+=("$1") option_kinds+=("$2") option_defaults+=("$3") option_helps+=("$4")
  printf -v "opt_$1" %s "$3"
}

usage() { # prints the header comment of the launcher, and its options
  awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
  echo
  echo "Options, before the verb:"
  local k shown
  for k in "${!option_names[@]}"; do
    shown=--${option_names[k]}
    [[ ${option_kinds[k]} == flag ]] || shown+="=${option_defaults[k]:-…}"
    printf '  %-26s %s\n' "$shown" "${option_helps[k]}"
  done
}

check_kind() { # check_kind NAME KIND VALUE
  case $2 in
    count) [[ $3 =~ ^(0|[1-9][0-9]{0,8})$ ]] || fail "--$1=$3: write a whole number, 0 or more" ;;
    size) [[ $3 =~ ^[1-9][0-9]{0,8}$ ]] || fail "--$1=$3: write a whole number, 1 or more" ;;
    seconds) [[ $3 =~ ^[0-9]{1,9}(\.[0-9]+)?$ ]] || fail "--$1=$3: write seconds, like 10" ;;
    text) [[ -n $3 && $3 != *$'\n'* ]] || fail "--$1 needs a value of one line: --$1=VALUE" ;;
  esac
}

take_option() { # take_option NAME VALUE GIVEN
  local k
  for k in "${!option_names[@]}"; do
    [[ ${option_names[k]} == "$1" ]] || continue
    if [[ ${option_kinds[k]} == flag ]]; then
      [[ -z $3 ]] || fail "--$1 takes no value"
      printf -v "opt_$1" %s yes
    else
      check_kind "$1" "${option_kinds[k]}" "$2"
      printf -v "opt_$1" %s "$2"
    fi
    return
  done
  case $1 in
    config* | workdir | over) fail "--$1 is an option of the program: write it after the verb, $launcher train --$1=$2" ;;
  esac
  fail "unknown option --$1: $(nearest "$1" "${option_names[@]}" help)"
}

parse() { # parse WORD...: options, then the verb, then the arguments of the program
  local word name more="${actions:-}"
  while (($#)) && [[ $1 == --* ]]; do
    word=${1#--} && shift
    name=${word%%=*} && name=${name//-/_}
    if [[ $name == help ]]; then
      usage
      exit 0
    elif [[ $word == *=* ]]; then
      take_option "$name" "${word#*=}" given
    else
      case $(kind_of "$name") in
        flag | "") take_option "$name" yes "" ;;
        *) fail "--$name needs a value: --$name=VALUE" ;;
      esac
    fi
  done
  verb=${1:-}
  # shellcheck disable=SC2086  # the lists are meant to split
  [[ -n $verb ]] || fail "no verb given: write e.g. $launcher train --config=diffusion_digits $(nearest "" $verbs $more)"
  # shellcheck disable=SC2086
  [[ " $verbs $more " == *" $verb "* ]] || fail "unknown verb '$verb': $(nearest "$verb" $verbs $more)"
  shift
  words=("$@")
}

kind_of() { # kind_of NAME: the kind of a declared option
  local k
  for k in "${!option_names[@]}"; do
    [[ ${option_names[k]} != "$1" ]] || echo "${option_kinds[k]}"
  done
}

one_of() { # one_of OPTION VALUE CHOICE...: fails unless VALUE is one of the choices
  local name=$1 value=$2
  shift 2
  [[ " $* " == *" $value "* ]] || fail "--$name=$value: $(nearest "$value" "$@")"
}

quote() { # quote WORD...: the words quoted for a shell, on one line
  local word written line="" inner="'\\''"
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
      written=$word
    else
      written="'${word//\'/$inner}'"
    fi
    line+="$written "
  done
  printf '%s' "${line% }"
}

json() { # json WORD: a JSON string, which is also a YAML string
  local text=$1
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\t'/\\t}
  printf '"%s"' "${text//$'\n'/\\n}"
}

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "genjax needs Python 3.11 or newer"
}

need() { # need PROGRAM WHY: fails if it is not installed, except in a dry run
  [[ -n ${opt_dry_run:-} ]] || command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

act() { # act COMMAND...: runs it, or prints it in a dry run
  if [[ -n ${opt_dry_run:-} ]]; then
    quote "$@" && echo
  else
    "$@"
  fi
}

finish() { # finish COMMAND...: execs it; a dry run prints it, each command of a group on its own line
  [[ -n ${opt_dry_run:-} ]] || exec "$@"
  quote "$@" | sed -e 's/ -- / -- \\\n  /' -e 's/ ::: / ::: \\\n  /g'
  echo
}
