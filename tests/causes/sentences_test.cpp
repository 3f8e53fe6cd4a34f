// What a report says of causes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/log/cause_findings.hpp"

namespace dds {
namespace {

Signature reading_with(std::int64_t step, const std::string& causes, Source source = Source::Read) {
  Signature s;
  s.step = step;
  s.layer = "fc1";
  s.kind = "Linear";
  s.side = Side::Fisher;
  s.source = source;
  s.width = 32;
  s.rank = 20;
  s.causes = causes_from_string(causes);
  return s;
}

std::vector<std::string> sentences_of(std::vector<Signature> signatures) {
  log::Run run;
  run.signatures = std::move(signatures);
  std::vector<std::string> text;
  for (const log::LastingCause& lasting : log::lasting_causes(run)) text.push_back(log::sentence(lasting));
  return text;
}

TEST(CauseSentences, TellSinceWhen) {
  EXPECT_THAT(sentences_of({reading_with(0, ""), reading_with(5, "relu_off:1[3]"), reading_with(10, "shape:1"),
                            reading_with(20, "relu_off:1[3]"), reading_with(30, "shape:1 relu_off:2[3,8]")}),
              testing::ElementsAre("fc1: 2 of 32 units are off in every row since step 20 (3, 8): a ReLU gives 0 "
                                   "there, and no gradient comes back through it."));
}

TEST(CauseSentences, TheWorstFirstAndTheUnexplainedLast) {
  EXPECT_THAT(sentences_of({reading_with(7, "relu_off:1[3] unexplained:9 downstream:2(fc2)")}),
              testing::ElementsAre(testing::HasSubstr("2 dimensions of the gradients are missing, because they are in "
                                                      "fc2"),
                                   testing::HasSubstr("1 of 32 units is off in every row (3)"),
                                   "fc1: 9 dimensions of the gradients are dead, and no cause was found."));
}

TEST(CauseSentences, CheckpointReadsCountWhereThereAreAny) {
  EXPECT_TRUE(sentences_of({reading_with(1, "zero:1[2]", Source::Step), reading_with(0, "")}).empty());
  EXPECT_EQ(sentences_of({reading_with(1, "zero:1[2]", Source::Step)}).size(), 1u);
}

}  // namespace
}  // namespace dds
