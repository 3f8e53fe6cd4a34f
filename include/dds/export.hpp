// What the shared library exports.
#pragma once

/// Opens the namespace of a public header, `namespace DDS_EXPORT dds {`: what is declared in that body can be seen from
/// outside the shared library, and nothing else can, since the library is compiled with -fvisibility=hidden. It stands
/// at the namespace rather than at every declaration so that a new one cannot be forgotten.
#define DDS_EXPORT [[gnu::visibility("default")]]
