// What a finished run says, or one that is still being written: the page with everything drawn, and the count of the
// directions that died.
#pragma once

#include <dds/decay.hpp>
#include <dds/export.hpp>
#include <filesystem>
#include <vector>

namespace DDS_EXPORT dds {

/// Writes `report.html` into a run directory that <dds/log.hpp>'s `directory` made, and returns its path. The page is
/// one file that works offline. Per layer over steps: sigma_min with its floor, lambda_min+, log det+ per dimension,
/// dead directions, and the LLC with error bars on the same axis of steps; a table of rank correlations with intervals;
/// what each reading cost. A run that is still being written can be reported on. The file is replaced whole or not at
/// all. Throws IoError if the directory holds no run or cannot be written, or a file in it is malformed (file and line
/// named).
std::filesystem::path write_report(const std::filesystem::path& run_directory);

/// The same of several runs, over each other in the same charts, a colour a run: the page goes into the file `page`.
/// Throws as above, and InvalidArgument if no run is given or one twice.
std::filesystem::path write_report(const std::vector<std::filesystem::path>& run_directories,
                                   const std::filesystem::path& page);

/// The directions that die in each series of the run's signatures, from its log alone: what Monitor::decay_counts()
/// says online. Needs the spectra in the log (SignatureOptions::spectra); series without any are not in the
/// result. Throws InvalidArgument for options out of range, IoError as above.
std::vector<DecayCount> decay_counts(const std::filesystem::path& run_directory, DecayOptions options = {});

}  // namespace dds
