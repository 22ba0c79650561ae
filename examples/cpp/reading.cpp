#include "reading.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "measure.hpp"

namespace {

using nlohmann::ordered_json;

struct Disease {
    std::string name, verdict, uncertain;
};
// in the order of the verdicts' columns; every picture with referable retinopathy has any
const std::vector<Disease> diseases = {{"referable_dr", "referable_dr", "DR_UNCERTAIN"},
                                       {"any_dr", "any_dr", "ANY_DR_UNCERTAIN"},
                                       {"glaucoma", "glaucoma_second", "GLAUCOMA_UNCERTAIN"}};

struct Fault {
    std::string name, code, advice;
};
// of a picture, the gravest first
const std::vector<Fault> faults = {
    {"not_a_fundus", "NOT_A_FUNDUS",
     "this does not look like a colour photograph of a retina; see that the right file was sent, and that the retina "
     "fills the picture"},
    {"dark", "DARK", "too dark; more flash, a wider pupil, lids and lashes away"},
    {"overexposed", "OVEREXPOSED", "overexposed; less flash, and take it again"},
    {"blurred", "BLURRED", "too blurred or hazy; clean the lens, focus, hold still, and take it again"}};

constexpr std::array<double, 3> middles = {0.75, 0.6, 0.5};  // of the field of view, where no disc is seen in the whole
constexpr double usual_least = 0.07, usual_most = 0.3;       // of its side: a disc's diameter

double value(const Outputs& outputs, const std::string& name) { return outputs.at(name).at<float>(0); }

// As decimals are rounded, and as Python does it.
double rounded(double number, int digits) {
    std::array<char, 64> text;
    std::snprintf(text.data(), text.size(), "%.*f", digits, number);
    return std::strtod(text.data(), nullptr);
}

void put(ordered_json& row, const std::string& verdict, const Decision& decision) {
    if (decision.called) row[verdict] = *decision.called;
    if (decision.probability) row[verdict + "_probability"] = rounded(*decision.probability, 6);
    if (decision.threshold) row[verdict + "_threshold"] = rounded(*decision.threshold, 6);
}

void put(ordered_json& row, const std::string& structure, const Outline& own) {
    row[structure + "_x"] = rounded(own.x, 2);
    row[structure + "_y"] = rounded(own.y, 2);
    row[structure + "_vertical_diameter_px"] = rounded(own.vertical_diameter_px, 2);
    row[structure + "_box_height_px"] = rounded(own.box_height_px, 2);
    row[structure + "_area_px"] = rounded(own.area_px, 2);
}

void warn(ordered_json& row, const std::string& code) { row["warnings"].push_back(code); }

bool warned(const ordered_json& row, const std::string& code) {
    const auto& all = row.at("warnings");
    return std::find(all.begin(), all.end(), code) != all.end();
}

Anatomy measured(const ordered_json& contract, const Outputs& outputs) {
    const auto& rules = contract.at("rules");
    const bool fovea = outputs.count("fovea");
    return measure(outputs.at("disc"), outputs.at("cup"), fovea ? outputs.at("fovea") : cv::Mat(),
                   {rules.at("disc_threshold"), rules.at("cup_threshold"), fovea && rules.at("fovea_mode") == "robust",
                    fovea ? rules.at("fovea_min_peak").get<double>() : 1.0});
}

double vcdr_of(const Anatomy& seen) { return static_cast<double>(seen.cup_px) / seen.disc_px; }

// What a vCDR says, and the mean of that and the network's own score.
Decision from_vcdr(const ordered_json& contract, double vcdr, double network, ordered_json& row) {
    const auto& rules = contract.at("rules");
    const double score =
        logistic(rules.at("vcdr_coefficient").get<double>() * vcdr + rules.at("vcdr_intercept").get<double>());
    row["glaucoma_vcdr"] = rounded(score, 6);
    const double threshold = contract.at("glaucoma_threshold"), mean = (network + score) / 2;
    return {mean, threshold, mean >= threshold};
}

}  // namespace

Ungradable too_dark() { return {faults[1].code, faults[1].advice}; }

Look look_for_disc(Model& model, const Prepared& square, const Prepared& finer) {
    Look whole{square, model.run(square.image)};
    const double threshold = model.contract.at("rules").at("disc_threshold");
    const double diameter = 2 * std::sqrt(cv::countNonZero(whole.outputs.at("disc") > threshold) / CV_PI);
    const double share = diameter / square.field();
    if (usual_least < share && share < usual_most) return whole;
    for (double share_of_field : middles) {
        const Prepared part = middle(finer, share_of_field, square.image.rows);
        const Look look{part, model.run(part.image)};
        const Anatomy seen = measured(model.contract, look.outputs);
        if (seen.region && is_disc(seen, part.field())) return look;
    }
    for (const auto& [way, back] : {std::pair(cv::ROTATE_90_COUNTERCLOCKWISE, cv::ROTATE_90_CLOCKWISE),
                                    std::pair(cv::ROTATE_90_CLOCKWISE, cv::ROTATE_90_COUNTERCLOCKWISE)}) {
        cv::Mat turned;
        cv::rotate(square.image, turned, way);
        Look look{square, model.run(turned), true};
        for (auto& [name, output] : look.outputs)
            if (output.total() > 1) cv::rotate(output, output, back);
        const Anatomy seen = measured(model.contract, look.outputs);
        if (seen.region && is_disc(seen, square.field())) return look;
    }
    return whole;
}

std::optional<Spot> spot_of(const ordered_json& contract, const Look& look, const Prepared& finer) {
    const Anatomy seen = measured(contract, look.outputs);
    const Placement& placement = look.square.placement;
    if (!seen.region || !is_disc(seen, look.square.field()) || is_sideways(seen, look.turned)) return {};
    const auto disc = outline(seen.region->disc, *seen.region, placement);
    return Spot{finer.placement.to_square(disc->x, disc->y), disc->vertical_diameter_px * finer.placement.scale_y};
}

Decision read_multitask(const ordered_json& contract, const Look& look, ordered_json& row) {
    const Anatomy seen = measured(contract, look.outputs);
    const Placement& placement = look.square.placement;
    if (!seen.region)
        throw Ungradable(
            "DISC_NOT_FOUND",
            "no optic disc was found; take it again with the disc in the picture, and send it the right way up");
    const auto disc = outline(seen.region->disc, *seen.region, placement);
    const auto cup = outline(seen.region->cup, *seen.region, placement);
    const bool plausible = is_disc(seen, look.square.field()), sideways = is_sideways(seen, look.turned);
    put(row, "disc", *disc);
    if (cup) put(row, "cup", *cup);
    if (!plausible) warn(row, "DISC_IMPLAUSIBLE");
    if (plausible && sideways) warn(row, "SIDEWAYS");
    if (plausible && !sideways && is_burnt_out(seen, look.square.image)) warn(row, "DISC_OVEREXPOSED");
    if (!cup) warn(row, "CUP_NOT_FOUND");

    Decision glaucoma{{}, contract.at("glaucoma_threshold").get<double>(), {}};
    const double network = value(look.outputs, "glaucoma");
    row["glaucoma_network"] = rounded(network, 6);
    if (cup && plausible && !sideways) {
        row["vcdr"] = rounded(vcdr_of(seen), 6);
        glaucoma = from_vcdr(contract, vcdr_of(seen), network, row);
    }
    put(row, "glaucoma", glaucoma);

    if (!seen.fovea || !is_fovea(seen)) {
        warn(row, "FOVEA_NOT_FOUND");
        return glaucoma;
    }
    const cv::Point2d fovea = placement.to_photo(seen.fovea->x, seen.fovea->y);
    row["fovea_x"] = rounded(fovea.x, 2);
    row["fovea_y"] = rounded(fovea.y, 2);
    const double across = disc->x - fovea.x, down = disc->y - fovea.y;  // the disc lies on the nose's side
    if (plausible && std::abs(across) >= std::max(disc->vertical_diameter_px, std::abs(down))) {
        row["eye"] = across > 0 ? "right" : "left";
        row["eye_source"] = "picture";
    }
    return glaucoma;
}

Look look_closer(Model& model, const Prepared& square, const Look& first) {
    Look look{square, model.run(square.image)};
    const double share = model.contract.at("first_share");
    for (const std::string name : {"disc", "cup"}) {
        cv::Mat& own = look.outputs.at(name);
        const cv::Mat under = on_square(first.outputs.at(name), first.square.placement, square);
        cv::addWeighted(own, 1 - share, under, share, 0, own);
    }
    return look;
}

Decision read_disc(const ordered_json& contract, const Look& look, const ordered_json& of_first, const Look& first,
                   const Decision& found, ordered_json& row) {
    const Anatomy seen = measured(contract, look.outputs), before = measured(of_first, first.outputs);
    const bool whole = seen.region && seen.cup_px && is_disc(seen, look.square.field());
    row["second_look"] = whole;
    if (!whole) return found;
    put(row, "disc", *outline(seen.region->disc, *seen.region, look.square.placement));
    put(row, "cup", *outline(seen.region->cup, *seen.region, look.square.placement));
    auto& warnings = row["warnings"];
    warnings.erase(std::remove(warnings.begin(), warnings.end(), "CUP_NOT_FOUND"), warnings.end());
    double vcdr = vcdr_of(seen);
    if (before.cup_px) {
        row["vcdr_first"] = rounded(vcdr_of(before), 6);
        vcdr = (vcdr + vcdr_of(before)) / 2;
    }
    row["vcdr"] = rounded(vcdr, 6);
    const double network = value(look.outputs, "glaucoma");
    row["glaucoma_network"] = rounded(network, 6);
    const Decision glaucoma = from_vcdr(contract, vcdr, network, row);
    put(row, "glaucoma", glaucoma);
    return glaucoma;
}

std::vector<std::string> grade(const ordered_json& contract, const Look& look, ordered_json& row) {
    if (!contract.contains("quality") || contract.at("quality").is_null()) return {};
    const auto& part = contract.at("quality");
    const Fault* found = nullptr;
    for (const Fault& fault : faults) {
        if (!part.at("thresholds").contains(fault.name)) continue;
        const double score = value(look.outputs, fault.name);
        row[fault.name] = rounded(score, 6);
        if (!found && score >= part.at("thresholds").at(fault.name).get<double>()) found = &fault;
    }
    if (part.value("image_quality", false)) row["image_quality"] = rounded(value(look.outputs, "image_quality"), 6);
    if (found) throw Ungradable(found->code, found->advice);
    const Placement& placement = look.square.placement;
    const double side = look.square.field() / std::max(placement.scale_x, placement.scale_y);  // px of the photo
    std::vector<std::string> coarse;
    double least = 0;  // of those that diseases ask for
    for (const auto& [disease, own] : part.at("least_px").items()) {
        const double px = own;
        least = least ? std::min(least, px) : px;
        if (side < px) coarse.push_back(disease);
    }
    if (!coarse.empty() && coarse.size() == part.at("least_px").size())
        throw Ungradable("LOW_RESOLUTION",
                         "the retina is " + std::to_string(std::lrint(side)) +
                             " px wide, too coarse for any decision; send the camera's own picture, " +
                             std::to_string(std::lrint(least)) + " px at the least");
    return coarse;
}

void read_classifier(const ordered_json& contract, const std::string& point, const Look& look, const Decision& glaucoma,
                     ordered_json& row) {
    const auto& parts = contract.at("decisions");
    std::map<std::string, Decision> decisions;
    for (const Disease& disease : diseases) {
        if (!parts.contains(disease.name)) continue;
        const auto& at = parts.at(disease.name).at("points").at(point);
        const double probability = value(look.outputs, disease.name), threshold = at.at("threshold");
        decisions[disease.name] = {probability, threshold, decide(probability, threshold, at.at("uncertain_logit"))};
    }
    if (decisions.count("referable_dr") && decisions.count("any_dr")) {
        const auto within = decisions["referable_dr"].called;
        auto& wider = decisions["any_dr"].called;
        if (!wider.value_or(false) && within != false) wider = within;
    }
    for (const auto& part : parts.items())  // in the contract's order
        for (const Disease& disease : diseases)
            if (disease.name == part.key() && !decisions[disease.name].called) warn(row, disease.uncertain);
    for (const Disease& disease : diseases) {
        if (!decisions.count(disease.name)) continue;
        Decision& own = decisions[disease.name];
        if (disease.name == "glaucoma" && warned(row, "DISC_NOT_FOUND")) own.called.reset();  // it shows at the disc
        put(row, disease.verdict, own);
    }
    row["operating_point"] = point;
    if (decisions.count("glaucoma") && glaucoma.probability) {
        const Decision& second = decisions["glaucoma"];
        const double seen = from_threshold(*glaucoma.probability, *glaucoma.threshold);
        const double other =
            from_threshold(*second.probability, parts.at("glaucoma").at("points").at("balanced").at("threshold"));
        if (second.called == !*glaucoma.called || std::abs(seen - other) > contract.at("disagreement").get<double>())
            warn(row, "GLAUCOMA_DISAGREEMENT");
    }
}

void leave_open(const std::vector<std::string>& coarse, ordered_json& row) {
    bool decided = false;
    for (const std::string& disease : coarse)
        for (const std::string& verdict : {disease, disease + "_second"}) {
            if (!row.contains(verdict) || row.at(verdict + "_threshold").is_null()) continue;
            row[verdict] = nullptr;
            decided = true;
        }
    if (decided) warn(row, "LOW_RESOLUTION");
}
