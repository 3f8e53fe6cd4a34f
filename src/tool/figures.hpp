// The main charts of runs as pictures, drawn by gnuplot.
//
// A program of its own rather than a library: what draws SVG and PNG in C++ is either a plotting toolkit with a
// windowing system behind it, or a hand-written writer that repeats gnuplot's axes, ticks and fonts. gnuplot is a
// Debian package of a megabyte, needed by nobody who does not ask for pictures.
#pragma once

#include <dds/run.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace dds::tool {

/// Layers that get a panel in a figure; further ones are in the heat maps only.
inline constexpr std::size_t kMostPanels = 24;

/// Writes sigma_min, lambda_min_plus, dead_directions, heat_sigma_min, heat_dead_directions and llc into `directory`,
/// as far as there is something in them, in `format` "svg" or "png", and figures.gp, the script that draws them;
/// returns the pictures' paths. Throws IoError where gnuplot is not installed or fails.
std::vector<std::filesystem::path> write_figures(const std::vector<log::Run>& runs,
                                                 const std::filesystem::path& directory, const std::string& format);

}  // namespace dds::tool
