// The table of columns covers every member of every row, and what it writes reads back as it was.
#include <cmath>
#include <dds/schema.hpp>
#include <limits>
#include <random>
#include <set>

#include "src/log/csv.hpp"
#include "src/log/record.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::message_of;

/// The members of `row` that the columns of its type hold.
template <class Row>
std::multiset<const void*> covered(const Row& row) {
  std::multiset<const void*> members;
  for (const auto& column : schema::columns_of<Row>()) {
    members.insert(std::visit([&](auto member) { return static_cast<const void*>(&member.of(row)); }, column.field));
  }
  return members;
}

template <class... Member>
std::multiset<const void*> all(const Member&... members) {
  return {static_cast<const void*>(&members)...};
}

// A member that is added to a row breaks these bindings: give it a column, and then a name here.

TEST(Schema, EveryMemberOfASignatureHasOneColumn) {
  const Signature s;
  const auto& [a, b, c, d, e, f, g, h, i, centred, j, k, l, m, n, o, p, q, r, t, u, v, w, x, y, z, architecture,
               explained, unexplained, causes, aa, bb, cc, dd, ee, ff, gg, hh, ii, jj, spectrum, dead_axes, axes] = s;
  // y is bound_ended_by: the status bound_unknown stands for it.
  EXPECT_EQ(covered(s), all(a, b, c, d, e, f, g, h, i, centred, j, k, l, m, n, o, p, q, r, t, u, v, w, x, z,
                            architecture, explained, unexplained, causes, aa, bb, cc, dd, ee, ff, gg, hh, ii, jj));
}

TEST(Schema, EveryMemberOfAnEstimateHasOneColumn) {
  const LlcEstimate s;
  const auto& [a, b, c, d, e, f, g, settled, h, i, j, diagnostics, settings, trials, k, l, trace, weights] = s;
  std::multiset<const void*> expected = all(a, b, c, d, e, f, g, h, i, j, k, l);
  {
    const auto& [m, n, o, p, q, r, t, u, v, w, x, distance, y, z, aa, bb, cc, dd, ee, ff, gg, hh, ii, jj, kk, ll, mm,
                 nn] = diagnostics;
    expected.merge(
        all(m, n, o, p, q, r, t, u, v, w, x, distance, y, z, aa, bb, cc, dd, ee, ff, gg, hh, ii, jj, kk, ll, mm, nn));
  }
  {
    const auto& [m, n, o, p, q, r, t, u, v, w, x, y, z, aa] = settings;
    expected.merge(all(m, n, o, p, q, r, t, u, v, w, x, y, z, aa));
  }
  EXPECT_EQ(covered(s), expected);
}

TEST(Schema, EveryMemberOfAMetricHasOneColumn) {
  const Metric s;
  const auto& [a, b, c] = s;
  EXPECT_EQ(covered(s), all(a, b, c));
}

template <class Row>
void expect_documented() {
  std::set<std::string_view> names;
  for (const auto& column : schema::columns_of<Row>()) {
    EXPECT_TRUE(names.insert(column.name).second) << column.name;
    EXPECT_FALSE(column.meaning.empty()) << column.name;
  }
}

TEST(Schema, NamesAreUniqueAndEveryColumnSaysWhatItMeans) {
  expect_documented<Signature>();
  expect_documented<LlcEstimate>();
  expect_documented<Metric>();
}

/// Values that text tends to spoil.
class Nasty {
 public:
  explicit Nasty(unsigned seed) : random_(seed) {}

  double number() {
    static const double edges[] = {0.0, -0.0, 0.1, 1.0 / 3, 1e308, -1e-308, 5e-324, 123456789.0, 1e22, 1e-7};
    if (pick(3) == 0) return edges[pick(std::size(edges))];
    return std::ldexp(std::uniform_real_distribution<double>(-1, 1)(random_), static_cast<int>(pick(2000)) - 1000);
  }
  std::optional<double> maybe() { return pick(4) == 0 ? std::nullopt : std::optional(number()); }
  std::int64_t integer() { return static_cast<std::int64_t>(random_() >> pick(64)) * (pick(2) ? 1 : -1); }
  std::string name() {
    static const char* parts[] = {"fc1", ",", "\"",        "\n", "\r\n", "\r",   "\"\"", " ",
                                  "ξ",   "'", "</script>", "\\", ";",    "=1+1", "\t"};
    std::string text;
    for (std::size_t i = pick(6); i > 0; --i) text += parts[pick(std::size(parts))];
    return text;
  }
  std::size_t pick(std::size_t n) { return random_() % n; }

 private:
  std::mt19937_64 random_;
};

Signature nasty_signature(Nasty& nasty) {
  Signature s;
  const Side sides[] = {Side::Activation, Side::Input, Side::Fisher};
  s.side = sides[nasty.pick(3)];
  for (std::string* text : {&s.layer, &s.kind, &s.reduction}) *text = nasty.name();
  const Source sources[] = {Source::Step, Source::Read};
  s.source = sources[nasty.pick(2)];
  const FisherKind kinds[] = {FisherKind::Empirical, FisherKind::Exact, {FisherKind::Sampled, nasty.integer()}};
  if (nasty.pick(2)) s.fisher_kind = kinds[nasty.pick(3)];
  const RowMode modes[] = {RowMode::Sample, RowMode::Expand};
  if (nasty.pick(2)) s.row_mode = modes[nasty.pick(2)];
  const c10::ScalarType dtypes[] = {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16};
  if (nasty.pick(2)) s.dtype = dtypes[nasty.pick(4)];
  for (auto* n : {&s.step, &s.calls, &s.backwards}) *n = nasty.integer();
  for (auto* n : {&s.rows, &s.width, &s.rank, &s.structural_bound, &s.dead_directions, &s.born, &s.revived}) {
    if (nasty.pick(4)) *n = nasty.integer();
  }
  for (auto* x : {&s.sigma_max, &s.sigma_min, &s.sigma_min_plus, &s.log10_lambda_min_plus, &s.log10_trace,
                  &s.logdet_plus, &s.logdet_fixed_rank, &s.floor, &s.condition, &s.effective_rank, &s.stable_rank}) {
    *x = nasty.maybe();
  }
  if (nasty.pick(2)) s.fixed_rank = nasty.integer();
  if (nasty.pick(2)) s.at_floor = nasty.pick(2) == 0;
  for (std::size_t i = nasty.pick(4); i > 0; --i) s.status |= static_cast<Status>(1u << nasty.pick(14));
  s.seconds = nasty.number();
  return s;
}

template <class Row>
std::vector<nlohmann::json> cells(const Row& row) {
  std::vector<nlohmann::json> out;
  for (const auto& column : schema::columns_of<Row>()) out.push_back(log::cell(row, column));
  return out;
}

template <class Row>
Row through_csv(const Row& row) {
  const auto table = log::csv::parse(log::csv_line(row));
  EXPECT_EQ(table.records.size(), 1u);
  return log::row_of<Row>(table.records.at(0).fields);
}

TEST(Schema, SignaturesComeBackFromCsvAsTheyWere) {
  Nasty nasty(1);
  for (int round = 0; round < 2000; ++round) {
    const Signature s = nasty_signature(nasty);
    ASSERT_EQ(cells(through_csv(s)), cells(s));
  }
}

TEST(Schema, EstimatesAndMetricsComeBackFromCsvAsTheyWere) {
  LlcEstimate e = test::estimate(30, LlcKind::Tilted);
  EXPECT_EQ(cells(through_csv(e)), cells(e));
  EXPECT_TRUE(through_csv(e).converged());
  e.failures = {"r_hat 1.31 > 1.05", "drift 4"};
  e.lambda.reset();
  EXPECT_EQ(through_csv(e).failures, e.failures);
  EXPECT_FALSE(through_csv(e).lambda);
  const Metric m{3, "loss, \"test\"\n", 0.1};
  EXPECT_EQ(cells(through_csv(m)), cells(m));
}

TEST(Schema, WhatIsNotFiniteIsMissingAndNeverWritten) {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                           -std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(log::csv_line(Metric{1, "loss", bad}), "1,loss,\n");
    EXPECT_TRUE(std::isnan(through_csv(Metric{1, "loss", bad}).value));
    Signature s = test::signature(1);
    s.sigma_min = bad;
    s.seconds = bad;
    EXPECT_FALSE(through_csv(s).sigma_min);
    EXPECT_EQ(log::csv_line(s).find("nan"), std::string::npos);
    EXPECT_EQ(log::csv_line(s).find("inf"), std::string::npos);
  }
}

TEST(Schema, ABadFieldIsNamedWithItsColumn) {
  const auto read = [](const std::string& line) {
    log::row_of<Metric>(log::csv::parse(line + "\n").records.at(0).fields);
  };
  EXPECT_NE(message_of<InvalidArgument>([&] { read("1,loss,abc"); }).find("column value: 'abc'"), std::string::npos);
  EXPECT_NE(message_of<InvalidArgument>([&] { read("1.5,loss,1"); }).find("column step: '1.5'"), std::string::npos);
  EXPECT_NE(message_of<InvalidArgument>([&] { read("1,loss,nan"); }).find("column value: 'nan'"), std::string::npos);
  EXPECT_NE(message_of<InvalidArgument>([&] { read("1,loss"); }).find("the number of fields is 2, expected 3"),
            std::string::npos);
}

TEST(Csv, ReadsWhatItWroteWhateverTheFields) {
  Nasty nasty(2);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::vector<std::string>> table(1 + nasty.pick(4));
    std::string text;
    for (auto& fields : table) {
      for (std::size_t i = 1 + nasty.pick(4); i > 0; --i) fields.push_back(nasty.name());
      text += log::csv::line(fields);
    }
    const auto read = log::csv::parse(text);
    ASSERT_EQ(read.whole, text.size());
    ASSERT_EQ(read.records.size(), table.size());
    for (std::size_t i = 0; i < table.size(); ++i) ASSERT_EQ(read.records[i].fields, table[i]);
  }
}

TEST(Csv, TakesLineEndsOfBothKindsAndLeavesOutATornRecord) {
  const std::string text = "a,b\r\n1,\"x\ny\"\r\n2,\"to";
  const auto read = log::csv::parse(text);
  ASSERT_EQ(read.records.size(), 2u);
  EXPECT_EQ(read.records[0].fields, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read.records[1].fields, (std::vector<std::string>{"1", "x\ny"}));
  EXPECT_EQ(read.records[1].line, 2u);
  EXPECT_EQ(text.substr(read.whole), "2,\"to");
}

TEST(Csv, NamesTheLineOfAMisplacedQuote) {
  EXPECT_NE(message_of<InvalidArgument>([] { log::csv::parse("a\n\"x\ny\"\nb\"c\n"); }).find("line 4"),
            std::string::npos);
  EXPECT_THROW(log::csv::parse("\"a\"b\n"), InvalidArgument);
}

}  // namespace
}  // namespace dds
