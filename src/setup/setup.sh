# shellcheck shell=bash
# What the `run` scripts share: prepare PRESET installs what is missing, configures, and leaves build() ready to be called.
#
# Everything that does not come from Debian goes into .deps/, each part under a temporary name until it is whole.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
deps=$root/.deps

packages=(g++ cmake ninja-build ccache libfmt-dev libgtest-dev libgmock-dev libeigen3-dev nlohmann-json3-dev libcli11-dev zlib1g-dev
  libgloo-dev python3 python3-pip dataset-fashion-mnist)

# shellcheck disable=SC2034  # for the --help of each script
setup_help='Environment:
  DDS_TORCH_ROOT      folder of the LibTorch to use (with include/ and lib/), instead of the one that the set-up installs;
                      Torch_DIR, CMAKE_PREFIX_PATH and an installed torch Python package count too
  DDS_PLOTLY_JS       path of the plotly.min.js to use, instead of the one that the set-up installs
  DDS_CUDA            1: install LibTorch with CUDA, 0: without (default: with it where there is an NVIDIA GPU)
  DDS_SKIP_PACKAGES   1: do not look for Debian packages, what is needed is there in another way
  DDS_PRESET          the CMake preset to build with (default: default)'

say() { printf -- '-- %s\n' "$*" >&2; }

die() {
  printf 'error: %s\n' "$1" >&2
  (($# == 1)) || printf '       %s\n' "${@:2}" >&2
  exit 1
}

need_space() { # GIGABYTES PURPOSE
  local free
  free=$(df --output=avail -B1M "$root" | tail -1)
  ((free >= $1 * 1000)) || die "$2 needs about ${1}000 MB, and only ${free// /} MB are free where $root lies." \
    "Free some space and run this again."
}

install_packages() {
  local missing as_root=()
  if [[ ${DDS_SKIP_PACKAGES:-0} == 1 ]] || ! type dpkg-query apt-get >/dev/null 2>&1; then
    for tool in c++ cmake ninja python3; do
      command -v "$tool" >/dev/null || die "There is no $tool, and this system has no apt-get to install it with." \
        "Needed are a C++20 compiler, CMake 3.25, Ninja, Python 3 with pip, and the libraries fmt, GoogleTest, nlohmann-json," \
        "CLI11, zlib and (for tests) Eigen, and Debian's dataset-fashion-mnist for the main job. Its packages are: ${packages[*]}"
    done
    return
  fi
  missing=$(comm -23 <(printf '%s\n' "${packages[@]}" | sort) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^installed //p' | sort -u))
  [[ -n $missing ]] || return 0
  mapfile -t missing <<<"$missing"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "These Debian packages are missing, and installing them takes root or sudo: ${missing[*]}" \
      "As the administrator: apt-get update && apt-get install --no-install-recommends ${missing[*]}" \
      "Or set DDS_SKIP_PACKAGES=1 if they are there in another way."
    as_root=(sudo)
  fi
  say "Installing Debian packages: ${missing[*]}"
  # An index that cannot be fetched matters only if a package is then missing, which the installation notices.
  "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 -qq update >"$deps/apt.log" 2>&1 || true
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install --yes \
    --no-install-recommends "${missing[@]}" >>"$deps/apt.log" 2>&1 || {
    tail -n 4 "$deps/apt.log" >&2
    die "apt-get could not install ${missing[*]} (its last words are above, all of them in $deps/apt.log)." \
      "That takes a network, space and a Debian 12 or newer; by hand: apt-get install --no-install-recommends ${missing[*]}"
  }
}

pip_python() { # prints a python3 that has pip
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -m pip --version >/dev/null 2>&1 && echo "$python" && return
  done
  die "python3 has no pip: install Debian's python3-pip, or run python3 -m ensurepip."
}

# Installs the wheels that src/setup/LIST.txt pins into .deps/FOLDER, unless that has been done.
install_wheels() { # LIST FOLDER GIGABYTES BY_HAND
  local list=$root/src/setup/$1.txt target=$deps/$2 stamp python
  stamp=$(sha256sum <"$list")
  if [[ -f $target/.stamp && $(<"$target/.stamp") == "$stamp" ]]; then return; fi
  [[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || die "$1 is pinned for Linux on x86_64, and this is $(uname -s) on $(uname -m)." "$4"
  need_space "$3" "Installing $1"
  python=$(pip_python)
  say "Installing $1 into $target"
  partial=$(mktemp -d "$deps/partial.XXXXXX")
  mkdir "$partial/tmp"
  # The wheels are those of CPython 3.11 for any Linux since Debian 12, whatever the Python that runs pip is.
  TMPDIR=$partial/tmp PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
    --python-version 3.11 --implementation cp --abi cp311 --only-binary=:all: \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_18_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_12_x86_64 \
    --platform manylinux2010_x86_64 --platform manylinux1_x86_64 \
    --requirement "$list" --target "$partial/new" || die \
    "pip could not install what $list asks for (its message is above)." \
    "Without a network, point pip to a mirror or to downloaded wheels (PIP_INDEX_URL, PIP_FIND_LINKS)." "$4"
  echo "$stamp" >"$partial/new/.stamp"
  mkdir -p "$(dirname "$target")"
  if [[ -e $target ]]; then mv "$target" "$partial/old"; fi
  mv "$partial/new" "$target"
  rm -rf "$partial"
}

# The chart library of the report.
choose_plotly() {
  if [[ -n ${DDS_PLOTLY_JS:-} ]]; then
    choices+=("-DDDS_PLOTLY_JS=$DDS_PLOTLY_JS")
  else
    install_wheels plotly plotly 1 "By hand: give a plotly.min.js as DDS_PLOTLY_JS=/path/to/plotly.min.js."
  fi
}

# The user's own LibTorch, as find_torch.cmake says, or else one of ours.
choose_torch() {
  local list=libtorch space=4 cuda=OFF own
  if [[ $preset == *debian ]]; then return; fi
  if [[ ${DDS_CUDA:-} == 1 || (-z ${DDS_CUDA:-} && -e /dev/nvidia0) ]]; then list=libtorch-cuda space=14 cuda=ON; fi
  choices+=("-DDDS_CUDA=$cuda")
  own=$(cmake -P "$root/src/setup/find_torch.cmake")
  if [[ -n $own ]]; then
    choices+=("$own")
    return
  fi
  install_wheels "$list" libtorch "$space" "By hand: give a LibTorch 1.13 or later as DDS_TORCH_ROOT=/path/to/torch."
  choices+=("-DDDS_TORCH_ROOT=$deps/libtorch/torch")
}

# Prints the Python 3.11 that the pinned wheels are for.
python_of_the_wheels() { # WHAT_NEEDS_IT BY_HAND
  local candidate
  for candidate in python3.11 /usr/bin/python3.11 python3; do
    "$candidate" -c 'import sys; print(sys.executable) if sys.version_info[:2] == (3, 11) else sys.exit(1)' 2>/dev/null && return
  done
  die "$1 needs a Python 3.11, which the pinned packages are for; there is no python3.11 here." "$2"
}

# What reads the log and the report in the tests: TensorBoard and pandas, in .deps/readers with a link to their Python, and
# from Debian a browser without a screen, and gnuplot.
install_readers() {
  local python by_hand="Without --readers the tests that need them are skipped."
  install_wheels readers readers 1 "$by_hand"
  python=$(python_of_the_wheels --readers "$by_hand")
  ln -sfn "$python" "$deps/readers/interpreter"
}

# Packages in Python that a benchmark measures itself against, each peer's in a folder of its own, .deps/peers/PEER, as
# src/setup/peers/PEER.txt pins them (no such list: PyTorch alone). tests/benchmarks/peers/launch runs scripts with them.
install_peers() { # PEER...
  local peer python by_hand="Without --peers the benchmarks need none of it."
  mkdir -p "$deps/peers"
  python=$(python_of_the_wheels --peers "$by_hand")
  ln -sfn "$python" "$deps/peers/interpreter"
  # Unlike libtorch_cpu.so, PyTorch in Python loads every one of CUDA's libraries, GPU or not.
  if [[ -f $deps/libtorch/.stamp && $(<"$deps/libtorch/.stamp") == "$(sha256sum <"$root/src/setup/libtorch-cuda.txt")" ]]; then
    ln -sfn ../libtorch "$deps/peers/torch"
  else
    install_wheels libtorch-cuda peers/torch 14 "$by_hand"
  fi
  for peer in python "$@"; do
    [[ ! -f $root/src/setup/peers/$peer.txt ]] || install_wheels "peers/$peer" "peers/$peer" 1 "$by_hand"
  done
}

# Ninja itself configures again where that is due; this does it the first time, and when the choices are others.
configure() {
  local folder=$root/build/$preset
  if [[ -f $folder/build.ninja && -f $folder/choices.txt && $(<"$folder/choices.txt") == "${choices[*]}" ]]; then return; fi
  need_space 3 "Building"
  (cd "$root" && cmake --fresh --preset "$preset" "${choices[@]}")
  echo "${choices[*]}" >"$folder/choices.txt"
}

prepare() { # PRESET [PACKAGE...]
  local known
  preset=$1 choices=() partial=''
  packages+=("${@:2}")
  if [[ $preset == *debian ]]; then packages+=(libtorch-dev libopenblas0-pthread); fi
  if [[ $preset == installed* ]]; then packages+=(dpkg-dev doxygen libjs-mathjax); fi
  if [[ $preset == clang || $preset == fuzz ]]; then packages+=(clang libclang-rt-dev); fi
  mkdir -p "$deps"
  exec 9>"$deps/lock"
  flock --nonblock 9 || {
    say "Waiting for another run that is setting up in $root"
    flock 9
  }
  trap 'rm -rf "$partial"' EXIT
  rm -rf "$deps"/partial.*
  install_packages
  known=$(cd "$root" && cmake --list-presets | sed -n 's/^ *"\([^"]*\)".*/\1/p')
  grep -qx -- "$preset" <<<"$known" || die "There is no CMake preset '$preset'. There are: ${known//$'\n'/, }."
  choose_plotly
  choose_torch
  configure
}

# Builds TARGET... and lets other runs go on. A file that includes LibTorch takes up to 2 GB to compile.
build() {
  local cores memory
  cores=$(nproc) memory=$(awk '/^MemTotal/ { print int($2 / 2e6) }' /proc/meminfo)
  cmake --build "$root/build/$preset" --parallel $((memory < 1 ? 1 : memory < cores ? memory : cores)) --target "$@"
  exec 9>&-
}
