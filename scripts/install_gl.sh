#!/bin/sh
# Makes sure that pictures can be rendered without a screen: by EGL, else by OSMesa.
# usage: install_gl.sh PYTHON   (a python that has mujoco)
python=$1
packages="libegl1 libosmesa6 libgl1"

# Makes a context rather than looking for a library: libEGL may be there without any driver behind it.
renders() {
    for gl in egl osmesa; do
        MUJOCO_GL=$gl "$python" -c 'import mujoco; mujoco.GLContext(16, 16).make_current()' >/dev/null 2>&1 && return 0
    done
    return 1
}

[ "$(uname)" = Darwin ] && exit 0  # MuJoCo renders by CGL there
renders && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "no EGL or OSMesa found; installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    # One by one, since newer releases have no libosmesa6.
    for package in $packages; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1
    done
    renders && exit 0
fi
echo "no pictures: neither EGL nor OSMesa works here; on Debian or Ubuntu, apt-get install $packages" >&2
